"""LiRA: compare a record's loss with that under shadow adapters that did and did not see it.

Carlini et al. 2022 (arXiv:2112.03570), the online attack: each shadow is trained as the attacked adapter was,
on a random half of the records, so that each record is in about half of them.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float64

from ...errors import FinLoraError

FEWEST_SHADOWS = 16

TrainShadow = Callable[[Bool[np.ndarray, " record"], int], Float64[np.ndarray, " record"]]
"""Trains the shadow of that number on the chosen records, and returns the losses of all records under it."""


def shadow_scores(
    losses: Float64[np.ndarray, " record"], train_shadow: TrainShadow, *, shadows: int, seed: int
) -> Float64[np.ndarray, " record"]:
    """Return the log likelihood ratio of "in" over "out" for each record.

    Args:
        losses: Of the attacked adapter.
        train_shadow: Trains and measures one shadow adapter.
        shadows: How many, at least 16, an even number.
        seed: Determines which records each shadow sees.

    Raises:
        FinLoraError: If there are too few shadows.
    """
    if shadows < FEWEST_SHADOWS or shadows % 2:
        raise FinLoraError(f"LiRA needs an even number of at least {FEWEST_SHADOWS} shadows, got {shadows}.")
    seen = halves(len(losses), shadows, seed)
    confidences = np.stack([confidence(train_shadow(row, number)) for number, row in enumerate(seen)])
    return likelihood_ratios(confidence(losses), confidences, seen)


def halves(records: int, shadows: int, seed: int) -> Bool[np.ndarray, "shadow record"]:
    """Return which records each shadow sees: each record is seen by exactly half of the shadows."""
    random = np.random.default_rng(seed)
    orders = np.argsort(random.random((shadows, records)), axis=0)
    return orders < shadows // 2


def confidence(losses: Float64[np.ndarray, " record"]) -> Float64[np.ndarray, " record"]:
    """Return the logit of the probability of the answer, which is close to normal over shadows."""
    bounded = np.clip(losses, 1e-9, 50.0)
    return -bounded - np.log(-np.expm1(-bounded))


def likelihood_ratios(
    attacked: Float64[np.ndarray, " record"],
    confidences: Float64[np.ndarray, "shadow record"],
    seen: Bool[np.ndarray, "shadow record"],
) -> Float64[np.ndarray, " record"]:
    """Return log N(attacked; in) - log N(attacked; out) for each record.

    Means are each record's own; variances are shared by all records, as the authors advise for few shadows.
    """
    counts = seen.sum(axis=0)
    mean_in = np.where(seen, confidences, 0).sum(axis=0) / counts
    mean_out = np.where(seen, 0, confidences).sum(axis=0) / (len(seen) - counts)
    spread_in = np.sqrt(np.mean((confidences - mean_in)[seen] ** 2)) + 1e-6
    spread_out = np.sqrt(np.mean((confidences - mean_out)[~seen] ** 2)) + 1e-6
    log_in = -np.log(spread_in) - ((attacked - mean_in) / spread_in) ** 2 / 2
    log_out = -np.log(spread_out) - ((attacked - mean_out) / spread_out) ** 2 / 2
    return log_in - log_out
