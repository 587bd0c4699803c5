"""Merges that drop entries of the experts' dense updates: TIES, DARE, and both together.

They work on delta W = scale B A, one linear layer at a time, never on A and B apart: an entry of A or B is no
parameter of the adapted layer, and its sign depends on how the product was split.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from ...experts.errors import FinLoraError
from .settings import MergeSettings
from .updates import Merged, Part, SourceExpert, factorize, layers

_LOW_BITS = 15
"""Of the 31 bits of a float32 without its sign; the other 16 are counted first."""

Sparsify = Callable[[str, Part], Float[Tensor, "d_out d_in"]]


def ties(
    experts: Sequence[SourceExpert], weights: Sequence[float], settings: MergeSettings
) -> dict[str, Merged]:
    """TIES (Yadav et al. 2023, arXiv:2306.01708): trim, elect a sign for each entry, average what agrees.

    Trimming keeps the `density` largest magnitudes of each expert over all the layers that it adapts. The
    elected sign is that of the weighted sum. The average is weighted, over the experts that kept the entry
    and agree, and multiplied by the sum of all weights, the paper's lambda (1 by default). Where the sum is
    exactly 0 no sign is elected and the result is 0.

    Raises:
        FinLoraError: If a weight is negative.
    """
    _check_not_negative(weights)
    limits = {
        expert.name: _smallest_kept([update.dense for update in expert.updates.values()], settings.density)
        for expert in experts
    }

    def trim(_layer: str, part: Part) -> Tensor:
        delta = part.update.dense()
        return delta * (delta.abs() >= limits[part.expert])

    return _elect_and_average(experts, weights, settings, trim)


def dare(
    experts: Sequence[SourceExpert], weights: Sequence[float], settings: MergeSettings
) -> dict[str, Merged]:
    """DARE (Yu et al. 2024, arXiv:2311.03099) before a weighted sum.

    Each entry is kept with probability `density` and then divided by it, so that the expected sum is what
    `uniform` returns. Which entries are kept depends on the seed, the expert's name and the layer's name,
    not on the other experts.
    """
    return {
        name: factorize(
            torch.stack([part.weight * _drop(name, part, settings) for part in parts]).sum(0), settings.rank
        )
        for name, parts in layers(experts, weights)
    }


def dare_ties(
    experts: Sequence[SourceExpert], weights: Sequence[float], settings: MergeSettings
) -> dict[str, Merged]:
    """TIES with DARE's drop and rescale in place of trimming, as in PEFT.

    Raises:
        FinLoraError: If a weight is negative.
    """
    _check_not_negative(weights)
    return _elect_and_average(experts, weights, settings, lambda name, part: _drop(name, part, settings))


def _check_not_negative(weights: Sequence[float]) -> None:
    if min(weights) < 0:
        raise FinLoraError(
            f"ties and dare_ties average entries, so their weights must not be negative; got {min(weights)}: "
            "subtract experts with uniform, svd or dare."
        )


def _elect_and_average(
    experts: Sequence[SourceExpert], weights: Sequence[float], settings: MergeSettings, sparsify: Sparsify
) -> dict[str, Merged]:
    result = {}
    for name, parts in layers(experts, weights):
        deltas = torch.stack([sparsify(name, part) for part in parts])
        shares = torch.tensor([part.weight for part in parts])[:, None, None]
        elected = (shares * deltas).sum(0).sign()
        agreeing = shares * ((deltas.sign() == elected) & (deltas != 0))
        mean = (agreeing * deltas).sum(0) / agreeing.sum(0).clamp(min=torch.finfo(deltas.dtype).tiny)
        result[name] = factorize(sum(weights) * mean, settings.rank)
    return result


def _drop(layer: str, part: Part, settings: MergeSettings) -> Float[Tensor, "d_out d_in"]:
    delta = part.update.dense()
    digest = hashlib.sha256(f"{settings.seed}|{part.expert}|{layer}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big", signed=True))
    kept = torch.rand(delta.shape, generator=generator) < settings.density
    return delta * kept / settings.density


def _smallest_kept(tensors: Sequence[Callable[[], Tensor]], density: float) -> float:
    """Return the k-th largest magnitude over all tensors, k being `density` of their number of entries.

    Exact, in two passes and with one tensor in memory at a time: the bits of a non-negative float32 are in
    the order of its value, so counting the upper bits finds the bin of the k-th, and counting the lower bits
    inside this bin finds the k-th itself.
    """
    counts = _count(tensors, lambda bits: bits >> _LOW_BITS, 1 << (31 - _LOW_BITS))
    k = max(1, round(density * int(counts.sum())))
    high, before = _bin_of(counts, k)
    lowest = (1 << _LOW_BITS) - 1
    counts = _count(tensors, lambda bits: bits[bits >> _LOW_BITS == high] & lowest, lowest + 1)
    low, _ = _bin_of(counts, k - before)
    return float(torch.tensor((high << _LOW_BITS) | low, dtype=torch.int32).view(torch.float32))


def _count(tensors: Iterable[Callable[[], Tensor]], part: Callable[[Tensor], Tensor], bins: int) -> Tensor:
    return sum(
        (torch.bincount(part(make().abs().flatten().view(torch.int32)), minlength=bins) for make in tensors),
        start=torch.zeros(bins, dtype=torch.int64),
    )


def _bin_of(counts: Tensor, k: int) -> tuple[int, int]:
    """Return the bin of the k-th largest, and how many are in larger bins."""
    from_above = counts.flip(0).cumsum(0)
    place = int((from_above >= k).nonzero()[0])
    index = len(counts) - 1 - place
    return index, int(from_above[place] - counts[index])
