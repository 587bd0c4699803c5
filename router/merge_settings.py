"""Settings of merges that learn their weights, which are flags of the command line too.

Importing this file imports no torch, so that `--help` answers at once.
"""

import math
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from ..experts.errors import FinLoraError
from ..experts.settings import TrainingSettings


@dataclass(frozen=True, kw_only=True)
class CatSettings(TrainingSettings):
    """How CAT learns one weight for each expert and adapted layer, by gradient."""

    method: ClassVar[str] = "cat"

    learning_rate: float = 0.05
    """Largest step size of AdamW on the weights, which start at 1/n."""
    max_steps: int | None = 50
    """Optimizer steps in all."""
    gradient_checkpointing: bool = False
    """Compute activations twice to save memory."""


@dataclass(frozen=True, kw_only=True)
class LoraHubSettings:
    """How LoraHub searches one weight for each expert, without gradients; defaults are the paper's."""

    method: ClassVar[str] = "lorahub"

    steps: int = 40
    """Weights that are tried."""
    bound: float = 1.5
    """Weights lie between minus and plus this."""
    penalty: float = 0.05
    """Times the sum of the weights' magnitudes, added to the loss."""
    batch_size: int = 16
    """Examples run at once."""
    seed: int = 0
    """Determines which weights are tried, where the chosen optimizer draws any at random."""

    def __post_init__(self) -> None:
        """Reject settings that no search could follow."""
        for name in ("steps", "batch_size"):
            if getattr(self, name) < 1:
                raise FinLoraError(f"{name} must be at least 1, got {getattr(self, name)}.")
        if not (self.bound > 0 and math.isfinite(self.bound)):
            raise FinLoraError(f"bound must be finite and above 0, got {self.bound}.")
        if not (self.penalty >= 0 and math.isfinite(self.penalty)):
            raise FinLoraError(f"penalty must be finite and at least 0, got {self.penalty}.")

    def record(self) -> dict[str, Any]:
        """Return the settings, all of which determine the result."""
        return asdict(self)
