"""Does one matrix over pairs of experts go with another? Mantel's permutation test.

Pairs that share an expert are not independent, so pairs are never shuffled: experts are, rows and columns
together (Mantel 1967, "The detection of disease clustering and a generalized regression approach").
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.stats import rankdata

EXACT_UP_TO = 50_000
"""Most permutations that are all tried; 8 experts have 40,320."""
_ORDERS_AT_ONCE = 5_000
_ROUNDING = 1e-12


@dataclass(frozen=True)
class MantelTest:
    """Whether two matrices over pairs of experts go together.

    Attributes:
        correlation: Spearman's rank correlation over the pairs; NaN, with a p-value of 1, where it is not
            defined: there are fewer than two pairs, or one of both matrices has one value alone.
        p_value: Share of the permutations whose correlation is as far from 0 as the one found, or farther
            (two-sided). Drawn permutations count the one found as one more (Phipson and Smyth 2010).
        pairs: Pairs behind the correlation.
        experts: Experts whose labels are permuted.
        permutations: How many were tried, the one found included.
        exact: Whether these are all there are.
    """

    correlation: float
    p_value: float
    pairs: int
    experts: int
    permutations: int
    exact: bool


def mantel_test(
    similarity: Float[np.ndarray, "expert expert"],
    transfer: Float[np.ndarray, "expert expert"],
    *,
    ordered: bool = False,
    draws: int = EXACT_UP_TO - 1,
    seed: int = 0,
) -> MantelTest:
    """Test whether pairs of experts that are more alike transfer more, or less, to each other.

    Args:
        similarity: Symmetric, complete off the diagonal.
        transfer: From the expert of the row to the task of the column; NaN where it is not defined. Neither
            diagonal is read.
        ordered: Whether (i, j) and (j, i) are two pairs; by default they are one, with the mean of both
            directions, and left out where one of them is not defined.
        draws: Permutations to draw where there are too many to try all.
        seed: Of the draws.

    Raises:
        ValueError: `similarity` is incomplete or not symmetric.
    """
    count = len(similarity)
    off_diagonal = ~np.eye(count, dtype=bool)
    if np.isnan(similarity[off_diagonal]).any() or not np.array_equal(
        similarity, similarity.T, equal_nan=True
    ):
        raise ValueError("similarity must be complete and symmetric")
    wanted, values = (
        (off_diagonal, transfer) if ordered else (np.triu(off_diagonal), (transfer + transfer.T) / 2)
    )
    pairs = np.argwhere(wanted & ~np.isnan(values))
    if len(pairs) < 2:
        return MantelTest(math.nan, 1.0, len(pairs), count, permutations=1, exact=True)
    orders, exact = _orders(count, draws, seed)
    ranks = rankdata(values[tuple(pairs.T)])
    found, *permuted = _correlations(similarity, orders, pairs, ranks)
    as_extreme = int((np.abs(permuted) >= abs(found) - _ROUNDING).sum()) + 1
    constant = np.ptp(ranks) == 0 or np.ptp(similarity[tuple(pairs.T)]) == 0
    return MantelTest(
        correlation=math.nan if constant else float(found),
        p_value=as_extreme / len(orders),
        pairs=len(pairs),
        experts=count,
        permutations=len(orders),
        exact=exact,
    )


def _orders(count: int, draws: int, seed: int) -> tuple[Int[np.ndarray, "order expert"], bool]:
    """Permutations of the experts, the identity first."""
    if math.factorial(count) <= EXACT_UP_TO:
        return np.array(list(itertools.permutations(range(count)))), True
    identity = np.arange(count)
    drawn = np.random.default_rng(seed).permuted(np.tile(identity, (draws, 1)), axis=1)
    return np.concatenate([identity[None], drawn]), False


def _correlations(
    similarity: Float[np.ndarray, "expert expert"],
    orders: Int[np.ndarray, "order expert"],
    pairs: Int[np.ndarray, "pair 2"],
    ranks: Float[np.ndarray, " pair"],
) -> Float[np.ndarray, " order"]:
    """Spearman's correlation for every relabelling of the experts; 0 where it is not defined."""
    centred = ranks - ranks.mean()
    parts = []
    for start in range(0, len(orders), _ORDERS_AT_ONCE):
        labels = orders[start : start + _ORDERS_AT_ONCE]
        drawn = rankdata(similarity[labels[:, pairs[:, 0]], labels[:, pairs[:, 1]]], axis=1)
        drawn -= drawn.mean(axis=1, keepdims=True)
        lengths = np.linalg.norm(drawn, axis=1) * np.linalg.norm(centred)
        parts.append(np.divide(drawn @ centred, lengths, out=np.zeros(len(labels)), where=lengths > 0))
    return np.concatenate(parts)
