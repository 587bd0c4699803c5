"""Whole generations at batch 1: every mode beside PEFT's X-LoRA, which has no cache to decode with."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ...experts.errors import FinLoraError
from .contenders import CONTENDERS
from .plan import Bench, Record, Unit, timed
from .settings import SpeedPlan
from .timing import generate, seconds_of, take_turns


def units(plan: SpeedPlan) -> list[Unit]:
    """One unit a pair of lengths."""
    return [
        Unit(f"{prompt} and {new} tokens", partial(measure, prompt_tokens=prompt, new_tokens=new))
        for prompt, new in zip(plan.generation_prompts, plan.generation_new, strict=True)
    ]


def measure(bench: Bench, *, prompt_tokens: int, new_tokens: int) -> list[Record]:
    """Time all contenders and check that those that claim so generate the same tokens.

    Raises:
        FinLoraError: If they do not, in float32.
    """
    workshop = bench.workshop
    base = workshop.base()
    prompt = workshop.prompt(1, prompt_tokens)
    tokens: dict[str, list[int]] = {}

    def run(name: str, model: Any) -> float:
        generated: list[Tensor] = []
        seconds = seconds_of(lambda: generated.append(generate(model, prompt, new_tokens)))
        tokens[name] = generated[0][0].tolist()
        return seconds

    work = {}
    for name, contender in CONTENDERS.items():
        model = contender.make(workshop, base)
        generate(model, prompt, new_tokens if contender.compiled else 2)
        work[name] = partial(run, name, model)
    label = f"generation, {prompt_tokens} + {new_tokens} tokens"
    times = take_turns(work, bench.repeats, patience=bench.plan.patience_seconds, label=label)
    agreement = agreeing_tokens(tokens, may_round_apart=base.model.dtype != torch.float32)
    about = {"batch": 1, "prompt_tokens": prompt_tokens, "new_tokens": new_tokens}
    return [timed("generation", name, seconds, **about, **agreement[name]) for name, seconds in times.items()]


def agreeing_tokens(tokens: Mapping[str, list[int]], *, may_round_apart: bool) -> dict[str, dict[str, Any]]:
    """Compare greedy tokens of every contender that must generate those of another one.

    Args:
        tokens: New tokens, by contender.
        may_round_apart: Whether numbers are so coarse that equal models may choose different tokens where
            two are nearly as likely.

    Returns:
        By contender what its record says: whom it is compared with, and on how many tokens they agree before
        they part.

    Raises:
        FinLoraError: If they differ although they may not.
    """
    agreement: dict[str, dict[str, Any]] = {name: {} for name in tokens}
    for name, contender in CONTENDERS.items():
        rival = contender.same_tokens_as
        if rival is None:
            continue
        pairs = list(zip(tokens[name], tokens[rival], strict=True))
        agreeing = next((i for i, (own, other) in enumerate(pairs) if own != other), len(pairs))
        if agreeing < len(pairs) and not may_round_apart:
            raise FinLoraError(
                f"{contender.title} and {CONTENDERS[rival].title} generated different tokens, from new token "
                f"{agreeing + 1} on; nothing was written, since their speeds cannot be compared."
            )
        agreement[name] = {"same_tokens_as": rival, "agreeing_tokens": agreeing}
    return agreement
