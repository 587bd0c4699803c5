"""How decoding grows with the number of experts and with their rank."""

from __future__ import annotations

from functools import partial
from typing import Any

from .contenders import CONTENDERS, REFERENCE
from .decode import time_models
from .plan import Bench, Record, Unit
from .settings import SpeedPlan


def units(plan: SpeedPlan) -> list[Unit]:
    """One unit for the numbers of experts and one for the ranks, each with our single LoRA beside it."""
    return [
        Unit("experts", partial(measure, axis="experts", sizes=plan.growth_experts)),
        Unit("rank", partial(measure, axis="rank", sizes=plan.growth_ranks)),
    ]


def measure(bench: Bench, *, axis: str, sizes: tuple[int, ...]) -> list[Record]:
    """Time decoding at every size; all sizes take turns."""
    base = bench.workshop.base()
    models: dict[str, Any] = {}
    about: dict[str, dict[str, int]] = {}
    for size in sizes:
        workshop = bench.workshop.sized(**{axis: size})
        for name, contender in CONTENDERS.items():
            # One expert leaves nothing to choose, and one LoRA does not depend on the number of experts.
            needless = contender.top_k and workshop.shape.experts < 3
            if name == REFERENCE:
                needless = axis == "experts" and size != sizes[0]
            elif not contender.grows:
                continue
            if not needless:
                models[f"{name} {size}"] = contender.make(workshop, base)
                about[f"{name} {size}"] = {"experts": workshop.shape.experts, "rank": workshop.shape.rank}
    prompt = bench.workshop.prompt(1, bench.plan.growth_prompt)
    records = time_models(bench, models, prompt, {"axis": axis, "batch": 1, "prompt_tokens": prompt.shape[1]})
    return [
        record | about[record["contender"]] | {"contender": record["contender"].split()[0]}
        for record in records
    ]
