"""What methods cost: parameters, time and memory to train and to answer."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..experts.adapter import METADATA_FILE
from ..router.train import RESULT_FILE
from .cells import Cell, Cells
from .layout import RunLayout, expert_part
from .methods import Method
from .results import Result
from .statistics import MACRO

ON_EXPERTS = ("merges", "routers", "gates", "added")
"""Kinds of trained parts that are made of the experts."""


def compute_costs(
    cells: Cells, methods: Mapping[str, Method], job_costs: Mapping[str, Mapping[str, Any]], config_hash: str
) -> Iterator[Result]:
    """Parameters, speed, memory and training time of every method; what is not known is left out.

    Args:
        cells: Answers in distribution.
        methods: The methods that are compared.
        job_costs: `seconds` and `peak_bytes` of each training job, by its name.
        config_hash: Hash of the run's configuration, put into every record.
    """
    base_parameters = _parameters(cells, "base")
    for name, method in methods.items():
        own = [cell for task in cells.tasks for cell in cells.of(name, task)]
        # The oracle needs every expert in memory, as the uniform mixture does.
        resident = _parameters(cells, "uniform" if method.answers_of is not None else name)
        numbers = {
            "tokens_per_second": sum(cell.summary.answer_tokens for cell in own)
            / sum(cell.summary.seconds for cell in own),
            "answer_peak_bytes": max(cell.summary.peak_bytes for cell in own),
            "resident_parameters": resident,
            "trainable_parameters": resident - base_parameters,
            **_training(method, cells.tasks, job_costs),
        }
        for metric, value in numbers.items():
            yield Result(method=name, task=MACRO, metric=metric, value=float(value), config_hash=config_hash)


def _parameters(cells: Cells, method: str) -> int:
    first: Cell = cells.of(method, cells.tasks[0])[0]
    return first.summary.parameters


def _training(
    method: Method, tasks: Sequence[str], job_costs: Mapping[str, Mapping[str, Any]]
) -> dict[str, float]:
    by_seed = [
        dict.fromkeys(part for task in tasks for part in method.needs(seed, task)) for seed in method.seeds
    ]
    parts = list(by_seed[0])
    if any(part.split("/")[0] in ON_EXPERTS for part in parts):
        parts = [*map(expert_part, tasks), *parts]
    shared = [part for part in parts if all(part in one for one in by_seed) or part.startswith("experts/")]
    own = [part for one in by_seed for part in one if part not in shared]
    if not all(part in job_costs for part in (*shared, *own)):
        return {}
    seconds = sum(job_costs[part]["seconds"] for part in shared)
    seconds += sum(job_costs[part]["seconds"] for part in own) / len(method.seeds)
    if not shared and not own:
        return {"training_seconds": 0.0}
    peak = max(job_costs[part]["peak_bytes"] for part in (*shared, *own))
    return {"training_seconds": seconds, "training_peak_bytes": peak}


def read_job_costs(layout: RunLayout, jobs: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Seconds and peak memory of training jobs, by name; a job killed before they were noted is left out."""
    costs = {}
    for job in jobs:
        if layout.cost(job).exists():
            costs[job] = json.loads(layout.cost(job).read_text(encoding="utf-8"))
            records = [layout.folder / job / name for name in (METADATA_FILE, RESULT_FILE)]
            earlier = [
                json.loads(path.read_text(encoding="utf-8"))["seconds"] for path in records if path.exists()
            ]
            # The job counts its last attempt, the trainer's record all attempts but only their steps.
            costs[job]["seconds"] = max([costs[job]["seconds"], *earlier])
    return costs
