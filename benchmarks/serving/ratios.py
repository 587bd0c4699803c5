"""Ratios of contenders that took turns, with intervals over the turns."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import t as student

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval; the ends are NaN after a single turn."""

    value: float
    low: float
    high: float

    def text(self, form: str = ".2f") -> str:
        """The number with its interval, such as `0.97 (0.94 to 1.01)`."""
        if math.isnan(self.low):
            return f"{self.value:{form}} (one turn)"
        return f"{self.value:{form}} ({self.low:{form}} to {self.high:{form}})"


def ratio(above: Sequence[float], below: Sequence[float]) -> Estimate:
    """Geometric mean of the turns' ratios, with Student's interval of their logarithms.

    In one turn both ran close together in time, so what slowed both cancels.

    Args:
        above: Of each turn.
        below: Of the same turns.
    """
    return geometric(np.asarray(above, dtype=float) / np.asarray(below, dtype=float))


def geometric(values: Sequence[float] | np.ndarray) -> Estimate:
    """Geometric mean of positive numbers with Student's interval of their logarithms."""
    mean = _student(np.log(np.asarray(values, dtype=float)))
    return Estimate(math.exp(mean.value), math.exp(mean.low), math.exp(mean.high))


def average(values: Sequence[float]) -> Estimate:
    """Mean with Student's interval."""
    return _student(np.asarray(values, dtype=float))


def _student(values: np.ndarray) -> Estimate:
    mean = float(values.mean())
    if len(values) < 2:
        return Estimate(mean, math.nan, math.nan)
    error = float(values.std(ddof=1)) / math.sqrt(len(values))
    reach = float(student.ppf((1 + CONFIDENCE) / 2, len(values) - 1)) * error
    return Estimate(mean, mean - reach, mean + reach)
