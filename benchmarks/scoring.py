"""From the answers of a run to its numbers: scores with intervals, comparisons, and costs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..experts.adapter import METADATA_FILE
from ..experts.errors import FinLoraError
from ..router.train import RESULT_FILE
from .layout import RunLayout
from .methods import EXPERT_PREFIX, XLORA, Method, expert_job, router_job
from .predictions import Prediction, Summary, read_predictions
from .results import Result
from .statistics import MACRO, Bootstrap, Interval

COMPARED = XLORA  # the method whose differences to all others are computed


@dataclass(frozen=True)
class Cell:
    """Answers of one method to one task."""

    predictions: list[Prediction]
    summary: Summary


Cells = Mapping[tuple[str, "int | None", str], Cell]


def read_cells(layout: RunLayout, methods: Mapping[str, Method], tasks: Sequence[str]) -> Cells:
    """Read the answers of a finished run, by (method, seed, task); the oracle's are the right experts'.

    Raises:
        FinLoraError: A file is missing or malformed, or methods answered different examples.
    """
    cells: dict[tuple[str, int | None, str], Cell] = {}
    for method in methods.values():
        for seed in method.seeds:
            for task in tasks:
                source = method.name if method.open else f"{EXPERT_PREFIX}{task}"
                cells[method.name, seed, task] = Cell(*read_predictions(layout.cell(source, seed, task)))
    if len({(cell.summary.base_revision, cell.summary.quantization) for cell in cells.values()}) != 1:
        raise FinLoraError(
            f"The base changed while {layout.folder} was made; start a new run under another --name."
        )
    for task in tasks:
        if len({cell.summary.examples_sha256 for (_, _, name), cell in cells.items() if name == task}) != 1:
            raise FinLoraError(
                f"The methods in {layout.folder} answered different examples of {task}; start a new run."
            )
    return cells


def compute_results(
    cells: Cells,
    methods: Mapping[str, Method],
    tasks: Sequence[str],
    job_costs: Mapping[str, Mapping[str, Any]],
    *,
    seed: int,
    resamples: int,
    config_hash: str,
) -> list[Result]:
    """All numbers of a run.

    Args:
        cells: What `read_cells` returned.
        methods: The run's methods.
        tasks: The run's tasks.
        job_costs: `seconds` and `peak_bytes` of each training job, by its name.
        seed: Seed of the bootstrap.
        resamples: Draws of the bootstrap.
        config_hash: Hash of the run's configuration, put into every record.
    """
    scores = {
        method.name: {
            task: np.array(
                [
                    [100 * one.score for one in cells[method.name, seed, task].predictions]
                    for seed in method.seeds
                ]
            )
            for task in tasks
        }
        for method in methods.values()
    }
    groups = {task: _clusters(cells["base", None, task].predictions) for task in tasks}
    by_seed = {
        f"{method.name} {index}": {
            task: array[index : index + 1] for task, array in scores[method.name].items()
        }
        for method in methods.values()
        if method.has_seeds
        for index in range(len(method.seeds))
    }
    bootstrap = Bootstrap(scores | by_seed, groups, resamples=resamples, seed=seed)
    writer = _Writer(cells, methods, tasks, bootstrap, config_hash)
    return [*writer.scores(), *writer.comparisons(), *writer.costs(job_costs)]


def read_job_costs(layout: RunLayout, jobs: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Seconds and peak memory of training jobs, by name; a job killed before they were noted is left out."""
    costs = {}
    for job in jobs:
        if layout.cost(job).exists():
            costs[job] = json.loads(layout.cost(job).read_text(encoding="utf-8"))
            records = [layout.folder / job / name for name in (METADATA_FILE, RESULT_FILE)]
            earlier = [
                json.loads(path.read_text(encoding="utf-8"))["seconds"] for path in records if path.exists()
            ]
            # The job counts its last attempt, the trainer's record all attempts but only their steps.
            costs[job]["seconds"] = max([costs[job]["seconds"], *earlier])
    return costs


def _clusters(predictions: Sequence[Prediction]) -> list[str]:
    # An example without a group stands alone; the blank keeps its name from being that of a real group.
    return [one.group or f" {index}" for index, one in enumerate(predictions)]


class _Writer:
    """Turns cells and intervals into records."""

    def __init__(
        self,
        cells: Cells,
        methods: Mapping[str, Method],
        tasks: Sequence[str],
        bootstrap: Bootstrap,
        config_hash: str,
    ):
        self._cells, self._methods, self._tasks = cells, methods, tasks
        self._bootstrap, self._config_hash = bootstrap, config_hash

    def scores(self) -> Iterator[Result]:
        for method in self._methods.values():
            for task in (*self._tasks, MACRO):
                yield self._record(method, task, "score", self._bootstrap.score(method.name, task))
                if method.has_seeds:
                    for index, seed in enumerate(method.seeds):
                        interval = self._bootstrap.score(f"{method.name} {index}", task)
                        yield self._record(method, task, "score", interval, seed=seed)

    def comparisons(self) -> Iterator[Result]:
        method = self._methods[COMPARED]
        for other in self._methods:
            if other != COMPARED:
                for task in (*self._tasks, MACRO):
                    difference = self._bootstrap.difference(COMPARED, other, task)
                    yield self._record(method, task, f"difference:{other}", difference)
        for task in (*self._tasks, MACRO):
            ratio = self._bootstrap.ratio(COMPARED, "oracle", task)
            if ratio is not None:
                yield self._record(method, task, "ratio:oracle", ratio)

    def costs(self, job_costs: Mapping[str, Mapping[str, Any]]) -> Iterator[Result]:
        base_parameters = self._parameters("base")
        for method in self._methods.values():
            cells = self._cells_of(method, MACRO)
            seconds = sum(cell.summary.seconds for cell in cells)
            yield self._cost(
                method, "tokens_per_second", sum(cell.summary.answer_tokens for cell in cells) / seconds
            )
            yield self._cost(method, "answer_peak_bytes", max(cell.summary.peak_bytes for cell in cells))
            # The oracle needs every expert in memory, as the uniform mixture does.
            resident = self._parameters("uniform" if method.open is None else method.name)
            yield self._cost(method, "resident_parameters", resident)
            yield self._cost(method, "trainable_parameters", resident - base_parameters)
            yield from self._training_costs(method, job_costs)

    def _training_costs(self, method: Method, job_costs: Mapping[str, Mapping[str, Any]]) -> Iterator[Result]:
        experts = [expert_job(task) for task in self._tasks]
        routers = [router_job(method.name, seed) for seed in method.seeds if seed is not None]
        shared = list(method.parts) if method.open and not routers else experts
        if method.name == "base":
            shared = []
        if not all(job in job_costs for job in (*shared, *routers)):
            return
        seconds = sum(job_costs[job]["seconds"] for job in shared)
        if routers:
            seconds += sum(job_costs[job]["seconds"] for job in routers) / len(routers)
        yield self._cost(method, "training_seconds", seconds)
        if shared or routers:
            peak = max(job_costs[job]["peak_bytes"] for job in (*shared, *routers))
            yield self._cost(method, "training_peak_bytes", peak)

    def _parameters(self, method: str) -> int:
        return self._cells_of(self._methods[method], MACRO)[0].summary.parameters

    def _cells_of(self, method: Method, task: str, seed: int | None = None) -> list[Cell]:
        seeds = method.seeds if seed is None else (seed,)
        tasks = self._tasks if task == MACRO else (task,)
        return [self._cells[method.name, one, name] for one in seeds for name in tasks]

    def _cost(self, method: Method, metric: str, value: float | int) -> Result:
        return Result(
            method=method.name, task=MACRO, metric=metric, value=float(value), config_hash=self._config_hash
        )

    def _record(
        self, method: Method, task: str, metric: str, interval: Interval, seed: int | None = None
    ) -> Result:
        cells = self._cells_of(method, task, seed)
        return Result(
            method=method.name,
            task=task,
            metric=metric,
            value=interval.value,
            low=interval.low,
            high=interval.high,
            task_version=None if task == MACRO else cells[0].summary.task_version,
            n=sum(cell.summary.n for cell in self._cells_of(method, task, method.seeds[0])),
            seed=seed,
            seconds=sum(cell.summary.seconds for cell in cells) / (len(method.seeds) if seed is None else 1),
            peak_bytes=max(cell.summary.peak_bytes for cell in cells),
            commit=" ".join(sorted({cell.summary.commit or "unknown" for cell in cells})),
            config_hash=self._config_hash,
        )
