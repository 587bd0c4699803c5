"""Experts with fixed weights, which every token of a request uses alike; without experts it is the base."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, eq=False)
class ServedWeights:
    """What a request that names the base, one expert or a set of experts with weights runs on."""

    experts: Sequence[Hashable] = ()
    """Keys of the experts."""
    weights: Sequence[float] = ()
    """One for each."""
