"""Membership inference: tell from a record's loss whether the expert was trained on it.

Attacks give each record a score, higher for a likelier member. How well they do is measured by the area under
the curve of true over false positives: 0.5 is guessing, 1 is certainty.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float64
from scipy.stats import rankdata
from torch import nn

from ...encoding import Encoded, collate
from ...errors import FinLoraError
from ..private_training import record_losses

BATCH_SIZE = 48
RESAMPLES = 1000
"""Of the bootstrap behind an interval."""


@dataclass(frozen=True)
class AttackResult:
    """How well one attack tells members from others."""

    attack: str
    """Name of the attack."""
    auc: float
    """Chance that a member gets a higher score than another record, ties counted half."""
    low: float
    """Lower end of the 95 % interval of `auc`, by a bootstrap over groups."""
    high: float
    """Upper end."""
    tpr_at_1: float
    """Share of members found where 1 % of the others are mistaken for members."""
    tpr_at_5: float
    """Share of members found where 5 % of the others are."""
    members: int
    """Number of members scored."""
    others: int
    """Number of other records scored."""


def losses_of(model: nn.Module, rows: Sequence[Encoded], *, pad_id: int) -> Float64[np.ndarray, " record"]:
    """Return each record's mean loss on its answer, without changing the model.

    Args:
        model: A causal language model, with or without an adapter.
        rows: Records.
        pad_id: Token that fills rows up.
    """
    device = next(model.parameters()).device
    order = sorted(range(len(rows)), key=lambda index: len(rows[index].input_ids))
    losses = np.zeros(len(rows))
    was_training = model.training
    model.eval()
    try:
        for start in range(0, len(order), BATCH_SIZE):
            part = order[start : start + BATCH_SIZE]
            batch = collate([rows[index] for index in part], pad_id)
            with torch.no_grad():
                each = record_losses(model, {key: value.to(device) for key, value in batch.items()})
            losses[part] = each.double().cpu().numpy()
    finally:
        model.train(was_training)
    return losses


def loss_scores(
    losses: Float64[np.ndarray, " record"],
) -> Float64[np.ndarray, " record"]:
    """Return scores by the loss alone: members have a low one (Yeom et al. 2018, arXiv:1709.01604)."""
    return -losses


def calibrated_scores(
    losses: Float64[np.ndarray, " record"], base_losses: Float64[np.ndarray, " record"]
) -> Float64[np.ndarray, " record"]:
    """Return scores by how much better than the base the expert does, which takes easy records out.

    Watson et al. 2022 (arXiv:2111.08440), with the base as the model that has not seen the record.
    """
    return base_losses - losses


def measure(
    attack: str,
    scores: Float64[np.ndarray, " record"],
    is_member: Bool[np.ndarray, " record"],
    groups: Sequence[str] | None = None,
    *,
    seed: int = 0,
) -> AttackResult:
    """Measure an attack's scores.

    Args:
        attack: Its name.
        scores: Higher for likelier members.
        is_member: Which records are members.
        groups: What belongs together, such as the questions on one company, and is drawn together when the
            interval is made; by default each record is on its own.
        seed: Of the bootstrap.

    Raises:
        FinLoraError: If there are no members or no others, or a score is not a number.
    """
    if is_member.all() or not is_member.any():
        raise FinLoraError("An attack is measured on members and on others; one of the two is missing.")
    if np.isnan(scores).any():
        raise FinLoraError(f"The attack {attack} gives scores that are not numbers.")
    inside, outside = scores[is_member], scores[~is_member]
    names = np.asarray(groups if groups is not None else [str(index) for index in range(len(scores))])
    random = np.random.default_rng(seed)
    draws = [
        area_under_curve(
            inside[_redrawn(names[is_member], random)], outside[_redrawn(names[~is_member], random)]
        )
        for _ in range(RESAMPLES)
    ]
    low, high = np.quantile(draws, [0.025, 0.975])
    return AttackResult(
        attack,
        area_under_curve(inside, outside),
        float(low),
        float(high),
        _found(inside, outside, 0.01),
        _found(inside, outside, 0.05),
        len(inside),
        len(outside),
    )


def area_under_curve(inside: Float64[np.ndarray, " member"], outside: Float64[np.ndarray, " other"]) -> float:
    """Return the chance that a member's score is above another record's, ties counted half."""
    ranks = rankdata(np.concatenate([inside, outside]))
    above = ranks[: len(inside)].sum() - len(inside) * (len(inside) + 1) / 2
    return float(above / (len(inside) * len(outside)))


def _found(inside: np.ndarray, outside: np.ndarray, false_positives: float) -> float:
    """Share of members above a threshold that at most this share of the others exceeds."""
    allowed = int(false_positives * len(outside))
    threshold = np.sort(outside)[::-1][allowed]
    return float((inside > threshold).mean())


def _redrawn(groups: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Indices of records after groups were drawn with replacement."""
    _, numbers = np.unique(groups, return_inverse=True)
    members = np.argsort(numbers, kind="stable")
    sizes = np.bincount(numbers)
    starts = np.cumsum(sizes) - sizes
    drawn = random.integers(len(sizes), size=len(sizes))
    return np.concatenate([members[starts[group] : starts[group] + sizes[group]] for group in drawn])
