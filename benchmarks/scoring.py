"""From the answers of a run to its numbers: scores with intervals, comparisons, shares of the oracle."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ..experts.tasks import get_task
from .cells import Cells, Row
from .layout import EXPERT_PREFIX
from .methods import XLORA, Method
from .predictions import clusters
from .results import Result
from .statistics import CATEGORIES, MACRO, Bootstrap, Interval, holm

COMPARED = XLORA  # the method whose differences to all others are computed


def compute_results(
    cells: Cells, methods: Mapping[str, Method], *, seed: int, resamples: int, config_hash: str
) -> list[Result]:
    """All numbers of a run in one protocol, but for what it cost.

    Args:
        cells: What `read_cells` returned.
        methods: The methods that are compared.
        seed: Seed of the bootstrap.
        resamples: Draws of the bootstrap.
        config_hash: Hash of the run's configuration, put into every record.
    """
    bootstrap = make_bootstrap(cells, methods, seed=seed, resamples=resamples)
    writer = _Writer(cells, methods, bootstrap, config_hash)
    return [*writer.scores(), *writer.comparisons(), *writer.shares()]


def make_bootstrap(cells: Cells, methods: Mapping[str, Method], *, seed: int, resamples: int) -> Bootstrap:
    """The paired bootstrap over a protocol's questions, router seeds and expert seeds.

    Args:
        cells: What `read_cells` returned.
        methods: The methods that are compared.
        seed: Seed of the bootstrap.
        resamples: Its draws.
    """
    scores = {name: {task: cells.scores(name, task) for task in cells.tasks} for name in methods}
    rows = {
        _name_of_row(name, index): {task: array[index : index + 1] for task, array in scores[name].items()}
        for name, method in methods.items()
        if method.has_seeds
        for index in range(len(cells.rows[name]))
    }
    first = next(iter(methods))
    groups = {task: clusters(cells.of(first, task)[0].predictions) for task in cells.tasks}
    return Bootstrap(
        scores | rows,
        groups,
        resamples=resamples,
        seed=seed,
        expert_seeds={name: _expert_seeds(cells.rows[name]) for name in methods},
        categories={task: get_task(task).category for task in cells.tasks},
    )


def _name_of_row(method: str, index: int) -> str:
    return f"{method} {index}"


def _expert_seeds(rows: tuple[Row, ...]) -> list[int]:
    numbers = {seed: number for number, seed in enumerate(dict.fromkeys(row.expert_seed for row in rows))}
    return [numbers[row.expert_seed] for row in rows]


class _Writer:
    """Turns cells and intervals into records."""

    def __init__(self, cells: Cells, methods: Mapping[str, Method], bootstrap: Bootstrap, config_hash: str):
        self._cells, self._methods = cells, methods
        self._bootstrap, self._config_hash = bootstrap, config_hash
        self._means = (*cells.tasks, MACRO, CATEGORIES)

    def scores(self) -> Iterator[Result]:
        for name, method in self._methods.items():
            for task in self._means:
                yield self._record(name, task, "score", self._bootstrap.score(name, task))
                if method.has_seeds and task != CATEGORIES:
                    for index, row in enumerate(self._cells.rows[name]):
                        if row.expert_seed is None:
                            interval = self._bootstrap.score(_name_of_row(name, index), task)
                            yield self._record(name, task, "score", interval, row=row)

    def comparisons(self) -> Iterator[Result]:
        others = [name for name in self._methods if name != COMPARED]
        p_values = {
            other: {task: self._bootstrap.p_value(COMPARED, other, task) for task in self._means}
            for other in others
        }
        rivals = [other for other in others if not other.startswith(EXPERT_PREFIX)]
        over_methods = holm({other: p_values[other][MACRO] for other in rivals})
        for other in others:
            over_tasks = holm({task: p_values[other][task] for task in self._cells.tasks})
            adjusted = over_tasks | ({MACRO: over_methods[other]} if other in over_methods else {})
            for task in self._means:
                difference = self._bootstrap.difference(COMPARED, other, task)
                p_value = p_values[other][task]
                yield self._record(
                    COMPARED,
                    task,
                    f"difference:{other}",
                    difference,
                    p_value=p_value,
                    p_adjusted=adjusted.get(task),
                )
            yield self._record(
                COMPARED, MACRO, f"detectable:{other}", self._bootstrap.detectable(COMPARED, other)
            )

    def shares(self) -> Iterator[Result]:
        if "oracle" not in self._methods:
            return
        for task in self._means:
            ratio = self._bootstrap.ratio(COMPARED, "oracle", task)
            if ratio is not None:
                yield self._record(COMPARED, task, "ratio:oracle", ratio)
        for name in self._methods:
            normalized = self._bootstrap.normalized(name, "base", "oracle")
            if normalized is not None:
                yield self._record(name, MACRO, "normalized", normalized)

    def _record(
        self,
        method: str,
        task: str,
        metric: str,
        number: Interval | float,
        row: Row | None = None,
        p_value: float | None = None,
        p_adjusted: float | None = None,
    ) -> Result:
        rows = self._cells.rows[method] if row is None else (row,)
        tasks = (task,) if task in self._cells.tasks else self._cells.tasks
        cells = [self._cells.by_key[method, one, name] for one in rows for name in tasks]
        interval = number if isinstance(number, Interval) else None
        return Result(
            method=method,
            task=task,
            metric=metric,
            value=number.value if isinstance(number, Interval) else number,
            low=None if interval is None else interval.low,
            high=None if interval is None else interval.high,
            task_version=cells[0].summary.task_version if task in self._cells.tasks else None,
            n=sum(cell.summary.n for cell in cells) // len(rows),
            seed=None if row is None else row.seed,
            seconds=sum(cell.summary.seconds for cell in cells) / len(rows),
            peak_bytes=max(cell.summary.peak_bytes for cell in cells),
            commit=" ".join(sorted({cell.summary.commit or "unknown" for cell in cells})),
            config_hash=self._config_hash,
            protocol=self._cells.protocol,
            p_value=p_value,
            p_adjusted=p_adjusted,
        )
