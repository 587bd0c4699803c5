"""What the speed benchmark measures, which is flags too. Importing this file imports no torch."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from ...experts.errors import FinLoraError

Part = Literal["generation", "decode", "answers", "growth", "training", "quantization", "memory"]
PARTS: tuple[Part, ...] = get_args(Part)


@dataclass(frozen=True, kw_only=True)
class SpeedShape:
    """Shape of a random Llama and of its experts."""

    hidden_size: int = 512
    """Width of the hidden states."""
    layers: int = 8
    """Decoder layers."""
    intermediate_size: int = 1408
    """Width inside the MLPs."""
    heads: int = 8
    """Query heads; a quarter of it are key and value heads."""
    vocabulary: int = 8192
    """Number of tokens."""
    experts: int = 8
    """Experts of every mixture."""
    rank: int = 8
    """Rank of every expert."""

    def __post_init__(self) -> None:
        """Reject shapes that no Llama has."""
        for name, value in vars(self).items():
            if value < 1:
                raise FinLoraError(f"shape.{name} must be at least 1, got {value}.")
        if self.hidden_size % (2 * self.heads) or self.heads % self.key_value_heads:
            raise FinLoraError(
                f"shape.hidden_size {self.hidden_size} with shape.heads {self.heads} is no Llama: the "
                "width must be an even multiple of the heads, and the heads one of their quarter."
            )

    @property
    def key_value_heads(self) -> int:
        """Heads of keys and values."""
        return max(1, self.heads // 4)


@dataclass(frozen=True, kw_only=True)
class SpeedPlan:
    """Sizes of everything that is timed, and when a measurement is left out."""

    generation_prompts: tuple[int, ...] = (256, 1024)
    """Prompt tokens of the whole generations, PEFT's X-LoRA among them."""
    generation_new: tuple[int, ...] = (64, 128)
    """New tokens of each of them."""
    batches: tuple[int, ...] = (1, 4, 16)
    """Batch rows of prefill and decoding."""
    prompts: tuple[int, ...] = (128, 1024, 4096)
    """Prompt tokens of prefill and decoding."""
    decode_tokens: int = 32
    """Decode steps that are timed after each prefill."""
    mixtures: tuple[Path, ...] = ()
    """Folders of trained mixtures of the same experts, the first of mode exact, whose answers to a suite's
    test questions are timed; without any, that part is empty."""
    suite: str = "embedded"
    """Suite of these questions."""
    questions: int = 8
    """Questions of each task."""
    answers_on: tuple[str, ...] = ("none", "nf4")
    """Quantizations of the base of these mixtures."""
    growth_experts: tuple[int, ...] = (1, 2, 4, 8, 16, 64)
    """Numbers of experts."""
    growth_ranks: tuple[int, ...] = (4, 8, 16, 64)
    """Ranks of the experts."""
    growth_prompt: int = 32
    """Prompt tokens where numbers of experts and ranks are compared."""
    training_rows: int = 4
    """Rows of a training batch."""
    training_tokens: int = 256
    """Tokens of each row."""
    training_answer: int = 64
    """Last tokens of each row that are learnt, as those of an answer; the others are its question."""
    quantization_prompt: int = 128
    """Prompt tokens where quantizations are compared."""
    memory_prompt: int = 1024
    """Prompt tokens of the generations whose memory is measured."""
    memory_new: int = 8
    """New tokens of those."""
    memory_repeats: int = 3
    """Fresh processes a memory measurement."""
    most_prefill_seconds: float = 3.0
    """A batch and prompt length is left out if one pass over it must take longer, by its multiplications and
    the measured matrix speed."""
    patience_seconds: float = 240.0
    """A contender that has taken this long in one comparison is timed no further, but at least twice."""
    machine_mebibytes: int = 1024
    """Size of the tensors with which memory bandwidth is measured; well above the processor's cache."""
    matrix_size: int = 2048
    """Rows and columns of the matrices with which matrix speed is measured."""

    def __post_init__(self) -> None:
        """Reject plans that measure nothing."""
        if len(self.generation_prompts) != len(self.generation_new):
            raise FinLoraError(
                f"plan.generation-prompts has {len(self.generation_prompts)} lengths and plan.generation-new "
                f"{len(self.generation_new)}; give one number of new tokens for each prompt length."
            )
        if self.training_answer >= self.training_tokens:
            raise FinLoraError(
                f"plan.training-answer is {self.training_answer}, but a row has {self.training_tokens} "
                "tokens, of which the first cannot be learnt; make it smaller."
            )
        for name, value in vars(self).items():
            if name in ("mixtures", "suite", "answers_on"):
                continue
            if min(value if isinstance(value, tuple) else (value,), default=0) <= 0:
                raise FinLoraError(f"plan.{name} needs numbers above 0, got {value}.")
