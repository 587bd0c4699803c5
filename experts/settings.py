"""Settings of training, which are the flags of the command line too; what they do stands in `train.py`.

Importing this file imports no torch, so that `--help` answers at once.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from .errors import FinLoraError

ATTENTION_AND_MLP = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")

NOT_IN_RECORD = frozenset({"save_steps", "log_steps", "report_to"})
"""Settings that do not change the result, so an unfinished run may be resumed with other ones."""


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """Optimizer, schedule, seed and bookkeeping of one training run."""

    learning_rate: float = 2e-4
    """Largest step size of AdamW, reached at the end of the warm-up."""
    schedule: Literal["cosine", "linear", "constant_with_warmup"] = "cosine"
    """How the learning rate falls after the warm-up."""
    warmup: float = 0.05
    """Share of all steps over which the learning rate rises from 0."""
    weight_decay: float = 0.0
    """Decay of AdamW."""
    epochs: float = 3.0
    """Passes over the examples; ignored if max-steps is given."""
    max_steps: int | None = None
    """Optimizer steps in all."""
    batch_size: int = 16
    """Examples of one forward pass on one device."""
    gradient_accumulation: int = 1
    """Forward passes of one optimizer step."""
    max_gradient_norm: float = 1.0
    """Longer gradients are scaled down to this length."""
    seed: int = 0
    """Determines initial weights, order of examples and dropout."""
    save_steps: int = 100
    """Steps between checkpoints; a killed run loses at most this many. A multiple of log-steps."""
    log_steps: int = 10
    """Steps between two records of the loss."""
    report_to: Literal["none", "wandb"] = "none"
    """Where to log besides the output folder; set WANDB_MODE=offline to use Weights & Biases without a
    network."""

    def __post_init__(self) -> None:
        """Reject settings that no run could follow."""
        for name in ("batch_size", "gradient_accumulation", "save_steps", "log_steps"):
            if getattr(self, name) < 1:
                raise FinLoraError(f"{name} must be at least 1, got {getattr(self, name)}.")
        if self.max_steps is not None and self.max_steps < 1:
            raise FinLoraError(f"max_steps must be at least 1, got {self.max_steps}.")
        for name in ("learning_rate", "epochs"):
            if getattr(self, name) <= 0:
                raise FinLoraError(f"{name} must be above 0, got {getattr(self, name)}.")
        if not 0 <= self.warmup < 1:
            raise FinLoraError(f"warmup is a share of all steps, from 0 to below 1, got {self.warmup}.")
        if self.save_steps % self.log_steps:
            raise FinLoraError(
                f"save_steps ({self.save_steps}) must be a multiple of log_steps ({self.log_steps}), so "
                "that a resumed "
                "run records the same losses."
            )

    def record(self) -> dict[str, Any]:
        """Return the settings that determine the result."""
        return {key: value for key, value in dataclasses.asdict(self).items() if key not in NOT_IN_RECORD}


@dataclass(frozen=True, kw_only=True)
class ExpertSettings(TrainingSettings):
    """Shape of one expert and how it is trained."""

    rank: int = 8
    """Inner width of the update of each adapted layer."""
    alpha: int | float = 16
    """Scale of the update: it counts alpha / rank times, with rsLoRA alpha / sqrt(rank) times."""
    dropout: float = 0.0
    """Share of an adapted layer's inputs that training sets to zero on the update's path."""
    targets: tuple[str, ...] = ATTENTION_AND_MLP
    """Last name of each linear layer that gets an update."""
    method: Literal["lora", "rslora", "dora"] = "lora"
    """Variant of LoRA; a DoRA expert is used alone, not in a mixture."""
    gradient_checkpointing: bool = False
    """Compute activations twice to save memory."""

    def __post_init__(self) -> None:
        """Reject settings that no expert could be built from."""
        super().__post_init__()
        if self.rank < 1:
            raise FinLoraError(f"rank must be at least 1, got {self.rank}.")
        if not 0 <= self.dropout < 1:
            raise FinLoraError(f"dropout must be from 0 to below 1, got {self.dropout}.")
