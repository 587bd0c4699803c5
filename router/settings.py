"""Settings of routers and of their training, which are the flags of the command line too.

Importing this file imports no torch, so that `--help` answers at once.
"""

from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from ..experts.errors import FinLoraError
from ..experts.settings import TrainingSettings

Renormalize = Literal["none", "sum", "softmax"]


@dataclass(frozen=True, kw_only=True)
class XLoRASettings:
    """Shape of the perceptron and how its outputs become scalings."""

    depth: int = 1
    """Number of linear layers."""
    width: int = 2048
    """Features between the linear layers; without effect at depth 1."""
    dropout: float = 0.2
    """Share of features dropped between the linear layers in training; without effect at depth 1."""
    context_width: int = 0
    """Features with which a token looks back, by causal attention, at all tokens so far; they join its hidden
    state as input. At most the width of the base's keys. 0 looks at the token's own hidden state alone, as
    X-LoRA does."""
    per_module: bool = True
    """True: every adapted linear layer gets scalings of its own. False: one set a token."""
    softmax: bool = True
    """True: scalings are a softmax over the experts. False: they are the raw outputs."""
    temperature: float = 1.0
    """Divides the outputs before the softmax; lower is sharper."""
    top_k: int | None = None
    """Number of experts that keep their scaling, for each token and layer; all of them if None."""
    renormalize: Renormalize = "none"
    """What is done to kept scalings: nothing; division by their sum; or a softmax over them (PEFT's
    enable_softmax_topk)."""
    null_expert: bool = False
    """True: one more output competes in the softmax, and its weight goes to the plain base."""
    scale: float = 1.0
    """Multiplies all scalings at the end (PEFT's global_scaling_weight)."""
    relu: bool = True
    """False leaves out ReLU and dropout, as the xlora package can; only for imported routers."""
    bias: bool = True
    """False leaves out biases, as the xlora package can; only for imported routers."""

    def __post_init__(self) -> None:
        """Reject settings that no router could be built from."""
        for name in ("depth", "width") + (() if self.top_k is None else ("top_k",)):
            if getattr(self, name) < 1:
                raise FinLoraError(f"XLoRASettings.{name} must be at least 1, got {getattr(self, name)}.")
        if self.context_width < 0:
            raise FinLoraError(f"XLoRASettings.context_width must be at least 0, got {self.context_width}.")
        if not 0 <= self.dropout < 1:
            raise FinLoraError(f"XLoRASettings.dropout must be at least 0 and below 1, got {self.dropout}.")
        if not self.temperature > 0:
            raise FinLoraError(f"XLoRASettings.temperature must be above 0, got {self.temperature}.")
        if self.renormalize not in get_args(Renormalize):
            raise FinLoraError(
                f"XLoRASettings.renormalize must be one of {', '.join(get_args(Renormalize))}, got "
                f"{self.renormalize!r}."
            )
        if not self.softmax and (self.renormalize == "sum" or self.null_expert):
            raise FinLoraError(
                "XLoRASettings.softmax must be on for renormalize='sum' and for a null expert: raw outputs "
                "may be negative and have no share to give away."
            )

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "XLoRASettings":
        """Build settings from JSON values.

        Raises:
            FinLoraError: If a name is unknown or a value is not allowed.
        """
        known = {field.name for field in fields(cls)}
        if unknown := sorted(set(values) - known):
            raise FinLoraError(
                f"X-LoRA router settings {', '.join(unknown)} are unknown; known are "
                f"{', '.join(sorted(known))}."
            )
        try:
            return cls(**values)
        except TypeError as error:
            raise FinLoraError(
                f"A setting of the X-LoRA router has a value of the wrong kind: {error}."
            ) from error


@dataclass(frozen=True, kw_only=True)
class RouterTrainingSettings(TrainingSettings):
    """How a router learns on a mixture of tasks."""

    learning_rate: float = 1e-3
    """Largest step size of AdamW, reached at the end of the warm-up."""
    epochs: float = 1.0
    """Number of examples drawn, in multiples of all examples; ignored if max-steps is given."""
    task_temperature: float = 1.0
    """A task of n examples is drawn in proportion to n ** (1 / temperature): 1 as often as it has examples,
    large values all tasks alike."""
    label_weight: float = 0.0
    """Weight of the cross entropy between scalings and the expert of the example's task, averaged over tokens
    and layers; 0 trains on the answers alone, as X-LoRA does."""
    label_steps: int = 0
    """Steps before training in which the router learns from the labels alone, on stored hidden states."""
    prompt_dropout: float = 0.0
    """Mean share of a prompt's tokens that the router does not see in a step on labels, so that it does not
    hang on a few words; each example draws a share between 0 and twice this. At most 0.5."""
    balance_weight: float = 0.0
    """Weight of the penalty on using some experts more than others over a batch (Shazeer et al. 2017,
    arXiv:1701.06538)."""
    entropy_weight: float = 0.0
    """Weight of the entropy of each token's scalings: above 0 makes them sharper, below 0 flatter."""
    cache_hidden_states: bool = True
    """Store the hidden states of the scaling pass, which do not depend on the router; takes tokens x width x
    4 bytes on the disk (half of that in bfloat16) until the run ends."""
    gradient_checkpointing: bool = False
    """Compute activations twice to save memory."""

    def __post_init__(self) -> None:
        """Reject settings that no router could be trained with."""
        super().__post_init__()
        if not self.task_temperature > 0:
            raise FinLoraError(f"task_temperature must be above 0, got {self.task_temperature}.")
        for name in ("label_weight", "label_steps", "balance_weight"):
            if getattr(self, name) < 0:
                raise FinLoraError(f"{name} must be at least 0, got {getattr(self, name)}.")
        if not 0 <= self.prompt_dropout <= 0.5:
            raise FinLoraError(f"prompt_dropout must be from 0 to 0.5, got {self.prompt_dropout}.")
        if self.label_steps and not self.cache_hidden_states:
            raise FinLoraError("label_steps needs stored hidden states; leave cache_hidden_states on.")


@dataclass(frozen=True, kw_only=True)
class PhatgooseSettings(TrainingSettings):
    """How PHATGOOSE trains the gate of each expert, and how experts share a token; steps are the paper's."""

    learning_rate: float = 5e-3
    """Largest step size of AdamW on the gate vectors, which start at 0."""
    schedule: Literal["cosine", "linear", "constant_with_warmup"] = "constant_with_warmup"
    """How the learning rate falls after the warm-up."""
    warmup: float = 0.06
    """Share of all steps over which the learning rate rises from 0."""
    max_steps: int | None = 100
    """Optimizer steps for each expert."""
    top_k: int = 2
    """Most experts that share a token of a layer."""
    gradient_checkpointing: bool = False
    """Compute activations twice to save memory."""

    def __post_init__(self) -> None:
        """Reject settings that no gate could be trained with."""
        super().__post_init__()
        if self.top_k < 1:
            raise FinLoraError(f"top_k must be at least 1, got {self.top_k}.")
