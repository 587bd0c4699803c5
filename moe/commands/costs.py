"""The command that computes what a base costs before anything is downloaded or run."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import tyro

from ...experts.settings import ATTENTION_AND_MLP
from .answering import Quantization

if TYPE_CHECKING:
    from ...experts.cost_estimate import TrainingCost


@dataclass(frozen=True, kw_only=True)
class Device:
    """Speed of the device; the defaults are assumptions, to be replaced by its data sheet."""

    teraflops: float = 70.0
    """Peak in bfloat16, in 10^12 operations a second."""
    utilization: float = 0.3
    """Share of that peak which training reaches."""
    bandwidth: float = 900.0
    """Memory speed in GB a second."""


def estimate(
    base: Annotated[str, tyro.conf.arg(metavar="BASE")],
    /,
    quantization: Quantization = "nf4",
    experts: int = 8,
    rank: int = 8,
    targets: tuple[str, ...] = ATTENTION_AND_MLP,
    batch_size: int = 1,
    tokens: int = 2048,
    examples: int = 10_000,
    epochs: float = 1.0,
    checkpointing: bool = True,
    device: Annotated[Device, tyro.conf.arg(name="")] = Device(),
) -> None:
    """Compute memory and time of training and answering from a base's config.

    Nothing is measured, and no weights are loaded.

    Args:
        base: embedded, a local folder (its config.json suffices) or a hub id.
        quantization: How the base is stored.
        experts: Number of experts in the mixture.
        rank: Rank of each expert.
        targets: Last name of each linear layer that gets an expert.
        batch_size: Examples in memory at once in training.
        tokens: Tokens of one example, prompt and answer together.
        examples: Training examples of one expert, or of the router.
        epochs: Times that each is seen.
        checkpointing: Whether training computes activations twice to save memory.
        device: Speed of the device.
    """
    from ...experts.base_model import load_config
    from ...experts.cost_estimate import Training, decoding_bytes_per_token, measure_config, training_cost

    size = measure_config(load_config(base), targets)
    expert = rank * size.expert_parameters_per_rank
    router = (size.hidden + 1) * size.adapted_layers * experts
    plan = Training(quantization, batch_size, tokens, examples, epochs, checkpointing)
    speed = device.teraflops * device.utilization * 1e12
    print(f"{base}, {quantization}: computed from the config, not measured")
    print(
        f"parameters: base {size.linear_weights + size.other_weights:,}, expert {expert:,}, router {router:,}"
    )
    print(f"train one expert: {_line(training_cost(size, plan, expert), speed)}")
    routing = training_cost(size, plan, router, experts * expert, cached_passes=1)
    print(f"train the router: {_line(routing, speed)}")
    for name, passes, count in (("one expert", 1, 1), (f"a mixture of {experts}", 2, experts)):
        read = decoding_bytes_per_token(size, quantization, passes, count * expert, tokens)
        print(f"answer with {name}: at most {device.bandwidth * 1e9 / read:.0f} tokens a second for one user")


def _line(cost: "TrainingCost", operations_per_second: float) -> str:
    parts = {
        "base": cost.base_bytes,
        "adapters and optimizer": cost.trained_bytes,
        "activations": cost.activation_bytes,
        "logits": cost.logit_bytes,
    }
    shares = ", ".join(f"{name} {amount / 1e9:.1f}" for name, amount in parts.items())
    hours = cost.operations / operations_per_second / 3600
    return f"{cost.peak_bytes / 1e9:.1f} GB ({shares}), {hours:.1f} hours"
