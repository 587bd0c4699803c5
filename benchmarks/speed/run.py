"""The speed benchmark: mixtures beside PEFT and beside one adapter, on the same weights in one process.

All contenders of a comparison take turns, so that a machine that slows down slows all of them; reported are
medians, and ratios of medians. Start reading at `benchmark_speed`.
"""

from __future__ import annotations

import gc
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm
from transformers.utils.logging import disable_progress_bar

from ...experts.atomic_write import write_text
from ...experts.errors import FinLoraError
from ...experts.provenance import source_commit
from ..results import json_lines, read_json_lines
from ..run_config import claim
from . import answers, decode, generation, growth, memory, training
from .machine import describe_machine, machine_of, measure_machine
from .models import Workshop
from .plan import Bench, Record, Unit
from .report import build_report
from .settings import PARTS, SpeedPlan, SpeedShape

UNITS: dict[str, Callable[[SpeedPlan], list[Unit]]] = {
    "generation": generation.units,
    "decode": decode.units,
    "answers": answers.units,
    "growth": growth.units,
    "training": training.units,
    "quantization": decode.quantization_units,
    "memory": memory.units,
}
"""What every part measures."""
MACHINE = "machine"
"""Part of the records of the machine's limits, which every run measures first."""


@dataclass(frozen=True)
class SpeedConfig:
    """All that determines the numbers of a run, so far as it can be chosen."""

    shape: SpeedShape
    plan: SpeedPlan
    repeats: int
    machine: Mapping[str, Any]

    def as_json(self) -> dict[str, Any]:
        """The configuration as JSON gives it back."""
        return json.loads(json.dumps(asdict(self), default=str))


def benchmark_speed(
    folder: Path,
    shape: SpeedShape,
    *,
    repeats: int,
    parts: Sequence[str] = PARTS,
    plan: SpeedPlan | None = None,
) -> list[Record]:
    """Run the parts that are asked for and not finished yet, and report on all that are.

    Args:
        folder: New folder, or that of the same run to go on with.
        shape: Shape of the random base and experts.
        repeats: How often everything is timed, after one round that does not count.
        parts: Which parts.
        plan: Sizes of what is timed; by default `SpeedPlan()`.

    Returns:
        One record a measurement, of all finished parts.

    Raises:
        FinLoraError: If the folder holds another run or something else, or there is nothing to measure.
    """
    plan = plan or SpeedPlan()
    # Dozens of models are loaded; their bars would bury the one of the run.
    disable_progress_bar()
    _check(shape, repeats, parts)
    folder.mkdir(parents=True, exist_ok=True)
    claim(folder / "config.json", SpeedConfig(shape, plan, repeats, describe_machine()))
    store = RecordStore(folder / "speed.jsonl")
    if not store.has(MACHINE, MACHINE):
        sizes = {"mebibytes": plan.machine_mebibytes, "matrix_size": plan.matrix_size}
        store.add(MACHINE, MACHINE, measure_machine(**sizes, repeats=repeats))
    models = folder / "models"
    bench = Bench(Workshop(models, shape), plan, repeats, machine_of(store.of(MACHINE)))
    units = [(part, unit) for part in PARTS if part in parts for unit in UNITS[part](plan)]
    for part, unit in tqdm(units, desc="speed", unit="comparison"):
        if not store.has(part, unit.name):
            store.add(part, unit.name, unit.measure(bench))
            _release_memory()
    shutil.rmtree(models, ignore_errors=True)
    build_report(folder)
    return store.records


class RecordStore:
    """The records of a run on disk; a comparison is there as a whole or not at all."""

    def __init__(self, path: Path):
        """Read what an earlier call left."""
        self.path = path
        self.records: list[Record] = read_json_lines(path) if path.exists() else []

    def has(self, part: str, unit: str) -> bool:
        """Whether a comparison is finished."""
        return any(record["part"] == part and record["unit"] == unit for record in self.records)

    def of(self, part: str) -> list[Record]:
        """Records of a part."""
        return [record for record in self.records if record["part"] == part]

    def add(self, part: str, unit: str, records: Sequence[Record]) -> None:
        """Write the records of a finished comparison."""
        about = {"part": part, "unit": unit, "commit": source_commit()}
        self.records += [about | record for record in records]
        write_text(self.path, json_lines(self.records))


def _check(shape: SpeedShape, repeats: int, parts: Sequence[str]) -> None:
    if repeats < 1:
        raise FinLoraError(f"repeats must be at least 1, got {repeats}.")
    if unknown := set(parts) - set(PARTS):
        raise FinLoraError(f"No part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}.")
    if not parts:
        raise FinLoraError(f"No part was asked for; choose some of {', '.join(PARTS)}.")
    if shape.experts < 2:
        raise FinLoraError(f"shape.experts must be at least 2 to choose from, got {shape.experts}.")


def _release_memory() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
