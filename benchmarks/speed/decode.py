"""Seconds of prefill and of decode steps: by batch and prompt length, and by quantization of the base."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import torch
from tqdm import tqdm

from ...experts.base_model import QUANTIZATIONS
from .contenders import cached
from .machine import free_memory
from .plan import Bench, Record, Unit, left_out, timed
from .settings import SpeedPlan, SpeedShape
from .timing import Generations, proposals_of, take_turns

MEMORY_SHARE = 0.8
"""Share of the free memory that a measurement may fill."""


def units(plan: SpeedPlan) -> list[Unit]:
    """One unit a batch size and prompt length."""
    return [
        Unit(f"batch {batch}, {prompt} tokens", partial(measure, batch=batch, prompt_tokens=prompt))
        for prompt in plan.prompts
        for batch in plan.batches
    ]


def quantization_units(plan: SpeedPlan) -> list[Unit]:
    """One unit a quantization."""
    return [
        Unit(name, partial(measure, batch=1, prompt_tokens=plan.quantization_prompt, quantization=name))
        for name in QUANTIZATIONS
    ]


def measure(bench: Bench, *, batch: int, prompt_tokens: int, quantization: str = "none") -> list[Record]:
    """Time every contender that has a cache, or say why not."""
    about = {"batch": batch, "prompt_tokens": prompt_tokens, "quantization": quantization}
    if reason := why_not(bench, batch, prompt_tokens):
        return [left_out(reason, **about)]
    workshop = bench.workshop
    base = workshop.base(quantization)
    prompt = workshop.prompt(batch, prompt_tokens)
    models = {
        name: contender.make(workshop, base)
        for name, contender in cached().items()
        if batch == 1 or not contender.top_k
    }
    return time_models(bench, models, prompt, about)


def time_models(
    bench: Bench, models: Mapping[str, Any], prompt: torch.Tensor, about: Mapping[str, Any]
) -> list[Record]:
    """Time prefill and decode steps of models in turn; two records a model.

    Args:
        bench: How often, and how many steps.
        models: By the contender's name.
        prompt: Token ids (batch, token).
        about: What the records say beside the numbers.
    """
    generations = {
        name: Generations(model, prompt, bench.plan.decode_tokens) for name, model in models.items()
    }
    for one in tqdm(generations.values(), desc="warm-up", unit="model", leave=False):
        one.warm_up()
    work = {name: one.run for name, one in generations.items()}
    label = ", ".join(f"{key} {value}" for key, value in about.items())
    take_turns(work, bench.repeats, patience=bench.plan.patience_seconds, label=label)
    return [record for name, one in generations.items() for record in _records(name, one, about)]


def _records(name: str, one: Generations, about: Mapping[str, Any]) -> Iterable[Record]:
    yield timed("prefill", name, one.prefill_seconds, **about)
    yield timed(
        "decode",
        name,
        [seconds / one.steps for seconds in one.decode_seconds],
        **about,
        steps=one.steps,
        read_bytes=one.traffic.read_bytes,
        flops=one.traffic.flops,
        **proposals_of(one.model),
    )


def why_not(bench: Bench, batch: int, prompt_tokens: int) -> str | None:
    """Why a batch and prompt length cannot be measured here; None if it can."""
    shape, plan = bench.workshop.shape, bench.plan
    seconds = prefill_flops(shape, batch, prompt_tokens) / bench.machine.flops_per_second
    if seconds > plan.most_prefill_seconds:
        return (
            f"one pass over the prompt multiplies for at least {seconds:.1f} s on this machine, and the "
            f"limit is {plan.most_prefill_seconds:g} s (plan.most-prefill-seconds)"
        )
    needed, free = memory_needed(shape, batch, prompt_tokens), free_memory()
    if needed > MEMORY_SHARE * free:
        return (
            f"caches and activations take about {needed / 2**30:.1f} GiB, and {free / 2**30:.1f} GiB are free"
        )
    return None


def prefill_flops(shape: SpeedShape, batch: int, tokens: int) -> float:
    """Floating-point operations of one pass of the base over a prompt, output layer left out."""
    width, head = shape.hidden_size, shape.hidden_size // shape.heads
    weights = 2 * width * (width + shape.key_value_heads * head) + 3 * width * shape.intermediate_size
    # Causal attention: each token with half of all tokens on average, for scores and for values.
    attention = 2 * width * tokens / 2
    return 2.0 * batch * tokens * shape.layers * (weights + attention)


def memory_needed(shape: SpeedShape, batch: int, tokens: int) -> int:
    """Bytes of both passes' caches, twice while they grow, and of one block's activations."""
    size = 2 if torch.cuda.is_available() else 4
    cache = 2 * 2 * shape.layers * shape.key_value_heads * (shape.hidden_size // shape.heads)
    activations = 8 * shape.hidden_size + 4 * shape.intermediate_size
    return batch * tokens * size * (2 * cache + activations)
