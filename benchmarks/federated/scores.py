"""From the stored scores of single questions to means, intervals and shares of the gain."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...experts.tasks.suites import get_suite
from ..statistics import MACRO, Bootstrap, Interval
from .plan import XBRL_TASKS

BASE = "base"
INFINITE = "inf"
RESAMPLES = 4000


def name_of(arm: str, alpha: float | int, epsilon: float | int | str, more_records: float | int = 1.0) -> str:
    """Return the name of all seeds of one kind of training."""
    return f"{arm} {alpha:g} {epsilon if isinstance(epsilon, str) else format(epsilon, 'g')} {more_records:g}"


class FoundScores:
    """Scores of all trainings that are done, with intervals over seeds and companies.

    Args:
        cells: Records as `run_cell` returns them, and that of the base.
        suite: Name of the suite whose test questions were asked.
    """

    def __init__(self, cells: Sequence[dict[str, Any]], suite: str = "embedded") -> None:
        rows: dict[str, list[dict[str, Any]]] = {}
        for cell in sorted(cells, key=lambda one: one.get("seed", 0)):
            rows.setdefault(_name(cell), []).append(cell)
        self.cells = rows
        scores = {
            name: {task: np.array([cell["scores"][task] for cell in same]) for task in XBRL_TASKS}
            for name, same in rows.items()
        }
        count = {task: len(next(iter(cells))["scores"][task]) for task in XBRL_TASKS}
        groups = {
            task: [example.group for example in get_suite(suite).examples(task, "test")[: count[task]]]
            for task in XBRL_TASKS
        }
        self._bootstrap = Bootstrap(scores, groups, resamples=RESAMPLES)

    def __contains__(self, name: str) -> bool:
        return name in self.cells

    def seeds(self, name: str) -> int:
        """Return how many seeds were trained."""
        return len(self.cells[name])

    def score(self, name: str, task: str = MACRO) -> Interval:
        """Return the mean score, 0 to 100."""
        return self._bootstrap.score(name, task)

    def difference(self, name: str, other: str, task: str = MACRO) -> Interval:
        """Return the score of one minus that of the other, in points."""
        return self._bootstrap.difference(name, other, task)

    def share(self, name: str, best: str, task: str = MACRO) -> Interval | None:
        """Return how much of the way from the base to another training is gained, in percent."""
        return self._bootstrap.normalized(name, BASE, best, task)


def _name(cell: dict[str, Any]) -> str:
    if cell["arm"] == BASE:
        return BASE
    return name_of(cell["arm"], cell["alpha"], cell["epsilon"], cell["more_records"])
