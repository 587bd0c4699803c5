"""Paired cluster bootstrap: intervals of scores, of differences and of ratios. Knows no models and no files.

Examples about one company or one sentence are not independent, so whole clusters are drawn (Field and Welsh
2007, "Bootstrapping clustered data"). All methods see the same draw, so that what an easy or hard draw does
to both cancels in their difference. The macro mean draws clusters inside every task (a stratified bootstrap).
A method with several training seeds also has its seeds drawn, the same ones for all tasks, because one seed
is one router. Where experts were trained from several seeds, these are drawn first, the same ones for all
methods, since all methods stand on the same experts; then, within each, the method's own seeds.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq

MACRO = "macro"
"""Mean over tasks."""
CATEGORIES = "categories"
"""Mean over categories of the mean over their tasks."""
TAIL = 0.025  # on either side: 95 % intervals
POWER_DEVIATIONS = 2.8016  # standard errors that a two-sided 5 % test finds with 80 % power: 1.9600 + 0.8416
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
        expert_seeds: For methods whose rows stand on experts of several seeds, the expert seed of each row.
        categories: Category of every task, for the mean over categories; without them there is none.

    Raises:
        ValueError: The methods differ in tasks or items, or a task has no items.
    """

    def __init__(
        self,
        scores: Scores,
        groups: Mapping[str, Sequence[str]],
        *,
        resamples: int = 10_000,
        seed: int = 0,
        expert_seeds: Mapping[str, Sequence[int]] | None = None,
        categories: Mapping[str, str] | None = None,
    ):
        self._resamples, self._seed = resamples, seed
        self._expert_seeds = expert_seeds or {}
        self._check(scores, groups)
        self._values: dict[tuple[str, str], float] = {}
        self._draws: dict[tuple[str, str], NDArray[np.float64]] = {}
        self._extreme: dict[tuple[str, str], int] = {}
        self._weights = {MACRO: dict.fromkeys(groups, 1 / len(groups))}
        if categories is not None:
            self._weights[CATEGORIES] = _category_weights({task: categories[task] for task in groups})
        seed_weights = {method: self._seed_weights(method, by_task) for method, by_task in scores.items()}
        for task, items in groups.items():
            self._draw_task(task, items, scores, seed_weights)
        for method in scores:
            for mean, weights in self._weights.items():
                self._values[method, mean] = sum(
                    weight * self._values[method, task] for task, weight in weights.items()
                )
                self._draws[method, mean] = np.sum(
                    [weight * self._draws[method, task] for task, weight in weights.items()], axis=0
                )

    def score(self, method: str, task: str = MACRO) -> Interval:
        """Score of a method on a task, or its mean over tasks or categories, 0 to 100.

        Where every item scored 0, or every item 100, there is nothing to resample and an exact binomial bound
        over clusters stands in (`extreme_bound`). So it does for a mean over tasks that are all like that:
        the wrong ones bound its upper end, the right ones its lower end. A mean over tasks of which only some
        are, is resampled, which leaves out what these could add.
        """
        value = self._values[method, task]
        weights = self._weights.get(task, {task: 1.0})
        if any((method, one) not in self._extreme for one in weights):
            return self._interval(value, self._draws[method, task])
        wrong = [one for one in weights if self._values[method, one] == 0]
        right = [one for one in weights if one not in wrong]
        below, above = (
            100 * extreme_bound([weights[one] for one in same], [self._extreme[method, one] for one in same])
            for same in (right, wrong)
        )
        return Interval(value, value - below, value + above)

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

    def normalized(self, method: str, base: str, oracle: str, task: str = MACRO) -> Interval | None:
        """How far `method` gets on the way from `base` to `oracle`, in percent; below 0 if worse than base.

        None where the oracle is not above the base in every draw: there is then no way to go.
        """
        way = self._draws[oracle, task] - self._draws[base, task]
        whole = self._values[oracle, task] - self._values[base, task]
        if whole <= 0 or np.any(way <= 0):
            return None
        return self._interval(
            100 * (self._values[method, task] - self._values[base, task]) / whole,
            100 * (self._draws[method, task] - self._draws[base, task]) / way,
        )

    def p_value(self, method: str, other: str, task: str = MACRO) -> float:
        """Two-sided bootstrap p-value of no difference, at least 2 / (resamples + 1).

        By inverting the interval: twice the smaller share of draws on either side of zero (Efron and
        Tibshirani 1993, chapter 15), with one added to each count.
        """
        draws = self._draws[method, task] - self._draws[other, task]
        smaller = min(np.count_nonzero(draws <= 0), np.count_nonzero(draws >= 0))
        return float(min(1.0, 2 * (smaller + 1) / (len(draws) + 1)))

    def detectable(self, method: str, other: str, task: str = MACRO) -> float:
        """Smallest true difference, in points, that this many items find with 80 % power at 5 %."""
        draws = self._draws[method, task] - self._draws[other, task]
        return float(POWER_DEVIATIONS * draws.std(ddof=1))

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
        """How much each row counts in each draw, (resample, row)."""
        rows = len(next(iter(by_task.values())))
        if rows == 1:
            return np.ones((1, 1))
        expert_seed_of_row = np.asarray(self._expert_seeds.get(method, [0] * rows))
        if len(expert_seed_of_row) != rows:
            raise ValueError(f"{method} has {rows} rows and {len(expert_seed_of_row)} expert seeds of rows")
        expert_seeds = np.unique(expert_seed_of_row)
        drawn = self._draws_of_expert_seeds(len(expert_seeds))
        generator = np.random.default_rng([self._seed, zlib.crc32(f"seeds of {method}".encode())])
        weights = np.zeros((self._resamples, rows))
        for column, expert_seed in enumerate(expert_seeds):
            own = np.flatnonzero(expert_seed_of_row == expert_seed)
            share = np.full(len(own), 1 / len(own))
            # An expert seed drawn twice has its routers drawn twice.
            counts = generator.multinomial(drawn[:, column] * len(own), share)
            weights[:, own] = counts / (len(own) * len(expert_seeds))
        return weights

    def _draws_of_expert_seeds(self, count: int) -> NDArray[np.int64]:
        if count == 1:
            return np.ones((self._resamples, 1), dtype=np.int64)
        generator = np.random.default_rng([self._seed, zlib.crc32(b"expert seeds")])
        return generator.multinomial(count, np.full(count, 1 / count), size=self._resamples)

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


def extreme_bound(weights: Sequence[float], clusters: Sequence[int]) -> float:
    """Upper end of the 95 % interval of a weighted sum of shares of right answers, where none was right.

    For one task of weight 1 it is the exact bound of Clopper and Pearson (1934), 1 - 0.025 ** (1 / clusters).
    For several it is the largest sum under which nothing but wrong answers still has a chance of 2.5 %; that
    is the same bound over all clusters together where all tasks have as many and weigh alike. With all
    answers right it is, by symmetry, the distance of the lower end from the sum of weights.

    Args:
        weights: Weight of each task; without tasks the bound is 0.
        clusters: Its number of clusters.
    """
    if not len(weights):
        return 0.0
    shares, sizes = np.asarray(weights, dtype=float), np.asarray(clusters, dtype=float)
    # The largest sum of w * (1 - q) with the product of q ** n held at 0.025 has w / n in proportion to q,
    # but no q above 1; the logarithm of that proportion is found between the q of one task alone and 1.
    costs = np.log(sizes) - np.log(shares)

    def log_chance(proportion: float) -> float:
        return float(sizes @ np.minimum(0.0, proportion + costs))

    highest = -float(costs.min())
    lowest = highest + np.log(TAIL) - np.ptp(costs)
    proportion = brentq(lambda one: log_chance(one) - np.log(TAIL), lowest, highest)
    return float(shares @ -np.expm1(np.minimum(0.0, proportion + costs)))


def _category_weights(categories: Mapping[str, str]) -> dict[str, float]:
    """Weight of each task in the mean over categories of the mean over their tasks."""
    names = list(categories.values())
    return {task: 1 / (len(set(names)) * names.count(name)) for task, name in categories.items()}


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Adjust p-values for having asked several questions (Holm 1979): below 0.05 still means 5 % for all."""
    adjusted: dict[str, float] = {}
    highest = 0.0
    for place, name in enumerate(sorted(p_values, key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (len(p_values) - place) * p_values[name]))
        adjusted[name] = highest
    return {name: adjusted[name] for name in p_values}
