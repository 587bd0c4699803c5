"""Paired cluster bootstrap: intervals of scores, of differences and of ratios. Knows no models and no files.

Examples about one company or one sentence are not independent, so whole clusters are drawn (Field and Welsh
2007, "Bootstrapping clustered data"). All methods see the same draw, so that what an easy or hard draw does
to both cancels in their difference. The macro mean draws clusters inside every task (a stratified bootstrap).
A method with several training seeds also has its seeds drawn, the same ones for all tasks, because one seed
is one router.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MACRO = "macro"
TAIL = 0.025  # on either side: 95 % intervals
_ROWS_AT_ONCE = 1000  # bounds the memory of the (resample, cluster) counts

Scores = Mapping[str, Mapping[str, NDArray[np.float64]]]


@dataclass(frozen=True)
class Interval:
    """A number with its 95 % interval."""

    value: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether a difference with this interval is called a difference at all."""
        return self.low > 0 or self.high < 0


def cluster_counts(clusters: int, *, resamples: int, seed: int, task: str) -> NDArray[np.int64]:
    """How often every cluster of a task is drawn, (resample, cluster); the same for all methods.

    The stream depends on the task's name, so adding a task changes no other task's draws.
    """
    generator = np.random.default_rng([seed, zlib.crc32(task.encode())])
    return generator.multinomial(clusters, np.full(clusters, 1 / clusters), size=resamples)


class Bootstrap:
    """Resampled scores of many methods on many tasks, and the intervals that follow from them.

    Args:
        scores: For every method and task an array (seed, item) of item scores, 0 to 100. All methods answer
            the same tasks and, within a task, the same items in the same order.
        groups: For every task the cluster of each item.
        resamples: Number of draws.
        seed: Seed of the draws.

    Raises:
        ValueError: The methods differ in tasks or items, or a task has no items.
    """

    def __init__(
        self, scores: Scores, groups: Mapping[str, Sequence[str]], *, resamples: int = 10_000, seed: int = 0
    ):
        self._resamples, self._seed = resamples, seed
        self._check(scores, groups)
        self._values: dict[tuple[str, str], float] = {}
        self._draws: dict[tuple[str, str], NDArray[np.float64]] = {}
        self._extreme: dict[tuple[str, str], int] = {}
        seed_weights = {method: self._seed_weights(method, by_task) for method, by_task in scores.items()}
        for task, items in groups.items():
            self._draw_task(task, items, scores, seed_weights)
        for method in scores:
            self._values[method, MACRO] = float(np.mean([self._values[method, task] for task in groups]))
            self._draws[method, MACRO] = np.mean([self._draws[method, task] for task in groups], axis=0)

    def score(self, method: str, task: str = MACRO) -> Interval:
        """Score of a method on a task, or its macro mean over tasks, 0 to 100.

        Where every item of a task scored 0, or every item 100, there is nothing to resample and the exact
        binomial bound over clusters stands in (Clopper and Pearson 1934).
        """
        interval = self._interval(self._values[method, task], self._draws[method, task])
        clusters = self._extreme.get((method, task))
        if clusters is None:
            return interval
        reach = 100 * (1 - TAIL ** (1 / clusters))
        if interval.value == 0:
            return Interval(0.0, 0.0, reach)
        return Interval(100.0, 100.0 - reach, 100.0)

    def difference(self, method: str, other: str, task: str = MACRO) -> Interval:
        """Score of `method` minus score of `other`, in points."""
        return self._interval(
            self._values[method, task] - self._values[other, task],
            self._draws[method, task] - self._draws[other, task],
        )

    def ratio(self, method: str, other: str, task: str = MACRO) -> Interval | None:
        """Score of `method` in percent of the score of `other`; None where `other` scores 0 in some draw."""
        if np.any(self._draws[other, task] <= 0) or self._values[other, task] <= 0:
            return None
        return self._interval(
            100 * self._values[method, task] / self._values[other, task],
            100 * self._draws[method, task] / self._draws[other, task],
        )

    def draws(self, method: str, task: str = MACRO) -> NDArray[np.float64]:
        """The resampled scores themselves, (resample,)."""
        return self._draws[method, task]

    def _draw_task(
        self, task: str, items: Sequence[str], scores: Scores, seed_weights: Mapping[str, NDArray[np.float64]]
    ) -> None:
        names, cluster_of_item = np.unique(np.asarray(items, dtype=str), return_inverse=True)
        columns = np.concatenate([scores[method][task] for method in scores]).T  # (item, method and seed)
        sums = np.zeros((len(names), columns.shape[1]))
        np.add.at(sums, cluster_of_item, columns)
        sizes = np.bincount(cluster_of_item).astype(float)
        counts = cluster_counts(len(names), resamples=self._resamples, seed=self._seed, task=task)
        means = np.concatenate(
            [
                (part @ sums) / (part @ sizes)[:, None]
                for part in (
                    counts[row : row + _ROWS_AT_ONCE] for row in range(0, len(counts), _ROWS_AT_ONCE)
                )
            ]
        )
        first = 0
        for method in scores:
            own = scores[method][task]
            self._values[method, task] = float(own.mean())
            self._draws[method, task] = (means[:, first : first + len(own)] * seed_weights[method]).sum(
                axis=1
            )
            if np.all(own == 0) or np.all(own == 100):
                self._extreme[method, task] = len(names)
            first += len(own)

    def _seed_weights(self, method: str, by_task: Mapping[str, NDArray[np.float64]]) -> NDArray[np.float64]:
        seeds = len(next(iter(by_task.values())))
        if seeds == 1:
            return np.ones((1, 1))
        generator = np.random.default_rng([self._seed, zlib.crc32(f"seeds of {method}".encode())])
        return generator.multinomial(seeds, np.full(seeds, 1 / seeds), size=self._resamples) / seeds

    @staticmethod
    def _interval(value: float, draws: NDArray[np.float64]) -> Interval:
        low, high = np.quantile(draws, [TAIL, 1 - TAIL])
        return Interval(float(value), float(low), float(high))

    @staticmethod
    def _check(scores: Scores, groups: Mapping[str, Sequence[str]]) -> None:
        if not scores or not groups:
            raise ValueError("a bootstrap needs at least one method and one task")
        for method, by_task in scores.items():
            if by_task.keys() != groups.keys():
                raise ValueError(f"{method} answers {sorted(by_task)}, but the tasks are {sorted(groups)}")
            if len({len(array) for array in by_task.values()}) != 1:
                raise ValueError(f"{method} has different numbers of seeds on different tasks")
            for task, array in by_task.items():
                if array.ndim != 2 or array.shape[1] != len(groups[task]) or not array.size:
                    raise ValueError(
                        f"{method} on {task}: scores are {array.shape}, items {len(groups[task])}"
                    )
