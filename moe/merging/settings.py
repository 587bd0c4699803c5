"""Settings of a merge, which are flags of the command line too.

Importing this file imports no torch, so that `--help` answers at once.
"""

import math
from dataclasses import dataclass

from ...experts.errors import FinLoraError


@dataclass(frozen=True, kw_only=True)
class MergeSettings:
    """What a merge without training may be told; each method uses some of it."""

    weights: tuple[float, ...] = ()
    """How much of each expert, in the experts' order, used as given; by default 1/n each. For ties and
    dare_ties their sum is the scale of the result (the paper's lambda)."""
    density: float = 0.2
    """Share of each expert's entries that ties, dare and dare_ties keep."""
    rank: int | None = None
    """Rank of the result of svd (by default the largest of the experts') and of ties, dare and dare_ties (by
    default the full one, which is exact and as large as the adapted layers themselves)."""
    seed: int = 0
    """Determines which entries dare and dare_ties drop."""

    def __post_init__(self) -> None:
        """Reject settings that mean nothing to any method."""
        if not all(math.isfinite(weight) for weight in self.weights):
            raise FinLoraError(f"weights must be finite numbers, got {self.weights}.")
        if self.weights and not any(self.weights):
            raise FinLoraError("All weights are 0, so nothing would be left; give at least one other.")
        if not 0 < self.density <= 1:
            raise FinLoraError(f"density is a share, above 0 and at most 1, got {self.density}.")
        if self.rank is not None and self.rank < 1:
            raise FinLoraError(f"rank must be at least 1, got {self.rank}.")
