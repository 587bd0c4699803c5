"""Merges that never leave the form of two thin matrices: uniform, linear, svd."""

import math
from collections.abc import Mapping, Sequence

from ...experts.errors import FinLoraError
from .settings import MergeSettings
from .updates import Merged, Part, SourceExpert, Update, concatenate, layers, truncate


def uniform(
    experts: Sequence[SourceExpert], weights: Sequence[float], settings: MergeSettings
) -> dict[str, Merged]:
    """Weighted sum of the experts' updates, exactly; with the default weights their mean."""
    return weighted_sum(experts, weights)


def weighted_sum(
    experts: Sequence[SourceExpert], weights: Sequence[float] | Mapping[str, Sequence[float]]
) -> dict[str, Merged]:
    """Sum the experts' updates, exactly.

    A and B are laid side by side, so the rank is the sum of the experts' ranks, and no A meets another's B.

    Args:
        experts: What is merged.
        weights: One for each expert: the same for all layers, or others by the name of each layer.
    """
    return {name: Merged(concatenate(parts)) for name, parts in layers(experts, weights)}


def svd(
    experts: Sequence[SourceExpert], weights: Sequence[float], settings: MergeSettings
) -> dict[str, Merged]:
    """The nearest update of the given rank to what `uniform` returns, for each layer."""
    result = {}
    for name, parts in layers(experts, weights):
        rank = settings.rank or max(part.update.rank for part in parts)
        result[name] = truncate(concatenate(parts), rank)
    return result


def linear(
    experts: Sequence[SourceExpert], weights: Sequence[float], settings: MergeSettings
) -> dict[str, Merged]:
    """Weighted sums of the A and of the B matrices on their own, as PEFT's "linear" has them.

    With scales s, A = sum sqrt(w s) A_i and B = sum sqrt(w s) B_i. It is an approximation: the product holds
    the wanted w s B_i A_i and, besides, B_i A_j for every pair of experts, which mean nothing, since each
    expert's A and B are known up to an invertible matrix between them only.

    Raises:
        FinLoraError: If ranks differ, so that matrices cannot be added.
    """
    return {name: Merged(_add(name, parts)) for name, parts in layers(experts, weights)}


def _add(name: str, parts: Sequence[Part]) -> Update:
    ranks = {part.expert: part.update.rank for part in parts}
    if len(set(ranks.values())) > 1:
        listed = ", ".join(f"{expert} {rank}" for expert, rank in ranks.items())
        raise FinLoraError(
            f"linear adds matrices of one rank, but at {name} the ranks are {listed}; use uniform or svd, "
            "which take any ranks."
        )
    down = sum(_root(part) * part.update.down for part in parts)
    up = sum(
        abs(_root(part)) / part.update.scale * part.update.up for part in parts if part.update.scale != 0
    )
    return Update(down, up)  # pyright: ignore[reportArgumentType]


def _root(part: Part) -> float:
    """The square root of weight times scale; a negative product leaves its sign on A alone."""
    product = part.weight * part.update.scale
    return math.copysign(math.sqrt(abs(product)), product)
