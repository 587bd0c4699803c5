"""The answers of a run, by protocol: which files belong to which method, seeds and task."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..experts.errors import FinLoraError
from .layout import WITHOUT_ADAPTERS, RunLayout
from .methods import Method
from .predictions import Prediction, Summary, read_predictions
from .protocols import PROTOCOLS, EvaluationProtocol
from .results import IN_DISTRIBUTION


@dataclass(frozen=True)
class Cell:
    """Answers of one method to one task."""

    predictions: list[Prediction]
    summary: Summary


class Row(NamedTuple):
    """One training of a method: the seed of the experts it stands on (None: the run's own) and its own."""

    expert_seed: int | None
    seed: int | None


@dataclass(frozen=True)
class Cells:
    """All answers in one protocol.

    Attributes:
        protocol: Its name.
        tasks: The tasks that were asked.
        rows: The trainings of each method, by name.
        by_key: Cells by (method, row, task).
    """

    protocol: str
    tasks: tuple[str, ...]
    rows: Mapping[str, tuple[Row, ...]]
    by_key: Mapping[tuple[str, Row, str], Cell]

    def of(self, method: str, task: str) -> list[Cell]:
        """One cell for each training of a method."""
        return [self.by_key[method, row, task] for row in self.rows[method]]

    def scores(self, method: str, task: str) -> NDArray[np.float64]:
        """Scores of all items, 0 to 100, (training, item)."""
        return np.array([[100 * one.score for one in cell.predictions] for cell in self.of(method, task)])


def read_cells(
    layout: RunLayout,
    methods: Mapping[str, Method],
    tasks: Sequence[str],
    *,
    protocol: EvaluationProtocol = PROTOCOLS[IN_DISTRIBUTION],
    expert_seeds: Sequence[int | None] = (None,),
) -> Cells:
    """Read the answers of a finished run in one protocol.

    Args:
        layout: The run.
        methods: Those that are compared, by name.
        tasks: All tasks of the run.
        protocol: How they were asked.
        expert_seeds: Seeds of experts; None is the run's own.

    Raises:
        FinLoraError: A file is missing or malformed, or methods answered different examples.
    """
    asked = tuple(protocol.asked(tasks))
    rows = {name: tuple(_rows(method, expert_seeds)) for name, method in methods.items()}
    by_key = {}
    for name, method in methods.items():
        for row in rows[name]:
            for task in asked:
                scope = dataclasses.replace(protocol.scope_of(task, tasks), expert_seed=row.expert_seed)
                source = name if method.answers_of is None else method.answers_of(task)
                path = layout.within(scope).cell(source, row.seed, task)
                by_key[name, row, task] = Cell(*read_predictions(path))
    cells = Cells(protocol.name, asked, rows, by_key)
    _check(layout, cells)
    return cells


def _rows(method: Method, expert_seeds: Sequence[int | None]) -> Iterator[Row]:
    for expert_seed in (None,) if method.name in WITHOUT_ADAPTERS else expert_seeds:
        for seed in method.seeds:
            yield Row(expert_seed, seed)


def _check(layout: RunLayout, cells: Cells) -> None:
    summaries = [(task, cell.summary) for (_, _, task), cell in cells.by_key.items()]
    if len({(one.base_revision, one.quantization) for _, one in summaries}) != 1:
        raise FinLoraError(
            f"The base changed while {layout.folder} was made; start a new run under another --name."
        )
    for task in cells.tasks:
        if len({one.examples_sha256 for name, one in summaries if name == task}) != 1:
            raise FinLoraError(
                f"The methods in {layout.folder} answered different examples of {task}; start a new run."
            )
