"""S-LoRA's synthetic workload: who asks for which expert, when, and how long prompts and answers are.

The draws are those of S-LoRA's own benchmark (Sheng et al. 2023, arXiv:2311.03285, `benchmarks/trace.py`), in
its order and from NumPy's legacy generator, so equal settings give its requests to the digit.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ...experts.errors import FinLoraError
from ...moe.serving.requests import GenerationRequest, ModelChoice

SLORA_LENGTHS = (8, 512)
"""Range of prompt and answer lengths in all of S-LoRA's experiments; the upper end is excluded."""


@dataclass(frozen=True, kw_only=True)
class Workload:
    """What determines a trace. Defaults are those of S-LoRA's headline numbers, but for the duration.

    Raises:
        FinLoraError: If a setting makes no trace.
    """

    adapters: int = 100
    """Models that are asked for."""
    alpha: float = 1.0
    """Exponent of the power law by which they are chosen: 1 is uniform, and smaller ones prefer the first."""
    rate: float = 10.0
    """Requests a second."""
    cv: float = 1.0
    """Coefficient of variation of the times between arrivals, which are Gamma distributed; 1 is Poisson."""
    duration: float = 60.0
    """Seconds; there are `int(rate * duration)` requests."""
    input_range: tuple[int, int] = SLORA_LENGTHS
    """Tokens of a prompt, the upper end excluded."""
    output_range: tuple[int, int] = SLORA_LENGTHS
    """Tokens of an answer, the upper end excluded."""
    seed: int = 42
    """Seed of all draws."""

    def __post_init__(self) -> None:
        """Reject what makes no trace."""
        for name in ("adapters", "alpha", "rate", "cv", "duration"):
            if not getattr(self, name) > 0:
                raise FinLoraError(f"workload.{name} must be above 0, got {getattr(self, name)}.")
        for name in ("input_range", "output_range"):
            low, high = getattr(self, name)
            if not 1 <= low < high:
                raise FinLoraError(
                    f"workload.{name.replace('_', '-')} must be two rising numbers, the first at least "
                    f"1, got {low} {high}; the second is excluded."
                )

    @property
    def requests(self) -> int:
        """Requests in the trace."""
        return int(self.rate * self.duration)


@dataclass(frozen=True)
class TraceRequest:
    """One request of a trace."""

    number: int
    adapter: int
    """Which model it asks for, counted from 0."""
    prompt_tokens: int
    new_tokens: int
    arrival: float
    """Seconds after the start."""


def make_trace(workload: Workload) -> list[TraceRequest]:
    """Draw a workload's requests, in order of arrival."""
    # The legacy generator and this order of draws are what makes the trace S-LoRA's.
    generator = np.random.RandomState(workload.seed)
    total = workload.requests
    adapters = (generator.power(workload.alpha, total) * workload.adapters).astype(int)
    prompts = generator.randint(*workload.input_range, total)
    answers = generator.randint(*workload.output_range, total)
    shape, scale = 1 / (workload.cv * workload.cv), workload.cv * workload.cv / workload.rate
    intervals = generator.gamma(shape, scale, total)
    requests, clock = [], 0.0
    for number in range(total):
        clock += intervals[number]
        requests.append(
            TraceRequest(
                number, int(adapters[number]), int(prompts[number]), int(answers[number]), float(clock)
            )
        )
    return requests


def expert_sets(experts: Sequence[str], count: int, size: int, *, seed: int = 0) -> list[dict[str, float]]:
    """Draw sets of experts with weights, for traces in which a model is a set and not one expert.

    Args:
        experts: Names to choose from.
        count: Sets.
        size: Different experts of each.
        seed: Of the draws, which are apart from those of the trace.

    Returns:
        Weights by name, each set's sum 1.

    Raises:
        FinLoraError: If there are fewer experts than a set needs.
    """
    if len(experts) < size:
        raise FinLoraError(
            f"Sets of {size} experts need at least as many experts, but there are {len(experts)}."
        )
    generator = np.random.default_rng(seed)
    sets = []
    for _ in range(count):
        chosen = generator.choice(len(experts), size, replace=False)
        weights = generator.dirichlet(np.ones(size))
        sets.append({experts[index]: float(weight) for index, weight in zip(chosen, weights, strict=True)})
    return sets


def as_requests(
    trace: Sequence[TraceRequest], models: Sequence[ModelChoice], word: Sequence[int]
) -> list[tuple[float, GenerationRequest]]:
    """Return arrival times and what is sent then: greedy, going on after end tokens, as S-LoRA asks.

    Args:
        trace: The requests.
        models: The model of each adapter number.
        word: Token ids of S-LoRA's prompt, "Hello "; repeated and cut to each prompt's length.
    """
    longest = max(one.prompt_tokens for one in trace)
    text = list(word) * (-(-longest // len(word)))
    return [
        (
            one.arrival,
            GenerationRequest(
                prompt_ids=text[: one.prompt_tokens],
                model=_copy(models[one.adapter]),
                max_new_tokens=one.new_tokens,
                ignore_eos=True,
            ),
        )
        for one in trace
    ]


def _copy(model: ModelChoice) -> ModelChoice:
    return dict(model) if isinstance(model, Mapping) else model
