"""What a load test may be asked for. Importing this file imports no torch, so `--help` answers at once."""

from dataclasses import dataclass
from typing import Literal, get_args

from ...experts.errors import FinLoraError

Part = Literal["experts", "models", "overload", "cold", "memory"]
PARTS: tuple[Part, ...] = get_args(Part)

Quantization = Literal["none", "int8", "nf4"]


@dataclass(frozen=True, kw_only=True)
class ServingPlan:
    """Sizes of everything that is asked of a server.

    Lengths are scaled down from S-LoRA's 8 to 512 tokens, since the embedded base on a processor is no 7B
    model on an A100; all else of its workload is as it was.
    """

    base: str = "embedded"
    """Base of all servers: embedded, a local folder or a hub id."""
    quantizations: tuple[Quantization, ...] = ("none", "nf4")
    """How the base is stored; everything but overload, cold and memory is measured on each."""
    experts: tuple[int, ...] = (1, 5, 100, 1000)
    """Numbers of registered experts."""
    peft_experts: tuple[int, ...] = (5, 1000)
    """Those of them at which PEFT is asked the same; may be none."""
    rank: int = 8
    """Rank of every expert."""
    rate: float = 40.0
    """Requests a second where throughput is measured; more than any server here answers."""
    duration: float = 3.0
    """Seconds of arrivals there."""
    alpha: float = 1.0
    """Exponent of the choice of experts; 1 is uniform."""
    cv: float = 1.0
    """Variation of arrivals; 1 is Poisson."""
    input_range: tuple[int, int] = (8, 64)
    """Tokens of a prompt, the upper end excluded."""
    output_range: tuple[int, int] = (8, 64)
    """Tokens of an answer, the upper end excluded."""
    set_size: int = 4
    """Experts of each weight set and mixture."""
    models: int = 5
    """Different experts, sets or mixtures that take part where kinds of models are compared."""
    set_adapter_batch: int = 6
    """Rows of PEFT's batches of one adapter, as in S-LoRA's script."""
    mixed_batch: int = 32
    """Rows of PEFT's mixed batches."""
    memory_pages: int = 768
    """Pages of the engine's memory; too few for 1,000 experts at once."""
    overload_factor: float = 2.0
    """Requests a second under overload, as a multiple of the throughput that was measured before."""
    overload_seconds: float = 30.0
    """Seconds of arrivals under overload."""
    overload_cvs: tuple[float, ...] = (1.0, 4.0)
    """Variations of arrivals under overload."""
    overload_turns: int = 3
    """Turns of each policy under overload."""
    cold_requests: int = 60
    """Pairs of a request for an expert on the device and one for an expert that is not."""

    def __post_init__(self) -> None:
        """Reject plans that measure nothing."""
        for name, value in vars(self).items():
            numbers = value if isinstance(value, tuple) else (value,)
            empty = not numbers and name != "peft_experts"
            if empty or any(not isinstance(one, str) and one <= 0 for one in numbers):
                raise FinLoraError(f"plan.{name.replace('_', '-')} needs numbers above 0, got {value}.")
        if missing := sorted(set(self.peft_experts) - set(self.experts)):
            raise FinLoraError(
                f"plan.peft-experts has {', '.join(map(str, missing))}, which plan.experts lacks; PEFT is "
                "compared with the engine at the same number of experts."
            )
        if self.set_size > max(self.experts):
            raise FinLoraError(
                f"plan.set-size is {self.set_size}, but there are at most {max(self.experts)} experts."
            )
