"""The load test: engine and PEFT on S-LoRA's workload, in turn, in one process.

Start reading at `benchmark_serving`.
"""

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm
from transformers.utils.logging import disable_progress_bar

from ...experts.errors import FinLoraError
from ..run_config import claim
from ..speed.machine import describe_machine
from ..speed.run import RecordStore
from .experiments import Record, cold_pairs, expert_turns, memory_of, model_turns, overload_turns
from .report import build_report
from .settings import PARTS, Part, ServingPlan
from .workshop import Workshop


@dataclass(frozen=True)
class ServingConfig:
    """All that determines the numbers of a run, so far as it can be chosen."""

    plan: ServingPlan
    repeats: int
    machine: dict[str, Any]

    def as_json(self) -> dict[str, Any]:
        """The configuration as JSON gives it back."""
        return json.loads(json.dumps(asdict(self), default=str))


def benchmark_serving(
    folder: Path, *, plan: ServingPlan, repeats: int, parts: Sequence[Part] = PARTS
) -> list[Record]:
    """Run the parts that are asked for and not finished yet, and report on all that are.

    Args:
        folder: New folder, or that of the same run to go on with.
        plan: Sizes.
        repeats: Turns of everything that takes turns.
        parts: Which parts.

    Returns:
        All records of finished parts.

    Raises:
        FinLoraError: If the folder holds another run, or there is nothing to measure.
    """
    if repeats < 1:
        raise FinLoraError(f"repeats must be at least 1, got {repeats}.")
    if not parts:
        raise FinLoraError(f"No part was asked for; choose some of {', '.join(PARTS)}.")
    disable_progress_bar()
    folder.mkdir(parents=True, exist_ok=True)
    claim(folder / "config.json", ServingConfig(plan, repeats, describe_machine()))
    store = RecordStore(folder / "serving.jsonl")
    workshop = Workshop(folder / "models", plan)
    for part, quantization in tqdm(units(plan, parts), desc="serving", unit="comparison"):
        if not store.has(part, quantization):
            store.add(part, quantization, measure(part, workshop, quantization, repeats, store))
            build_report(folder)
    workshop.clear()
    build_report(folder)
    return store.records


def units(plan: ServingPlan, parts: Sequence[Part]) -> list[tuple[Part, str]]:
    """What is measured, in order: part and how the base is stored."""
    everywhere = ("experts", "models")
    return [
        (part, quantization)
        for part in PARTS
        if part in parts
        for quantization in (plan.quantizations if part in everywhere else plan.quantizations[:1])
    ]


def measure(
    part: Part, workshop: Workshop, quantization: str, repeats: int, store: RecordStore
) -> list[Record]:
    """Run one part on one base.

    Raises:
        FinLoraError: If overload is asked for before there is a throughput to exceed.
    """
    if part == "experts":
        return expert_turns(workshop, quantization, repeats)
    if part == "models":
        return model_turns(workshop, quantization, repeats)
    if part == "cold":
        return cold_pairs(workshop, quantization)
    if part == "memory":
        return memory_of(workshop, quantization)
    most = max(workshop.plan.experts)
    found = [
        record["throughput"]
        for record in store.of("experts")
        if (record["contender"], record["unit"], record["experts"]) == ("engine", quantization, most)
    ]
    if not found:
        raise FinLoraError("Overload is a multiple of the measured throughput; add the part experts.")
    return overload_turns(workshop, quantization, statistics.median(found))
