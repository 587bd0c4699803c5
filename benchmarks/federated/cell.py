"""One training of the comparison: divide the records, simulate the federation, ask the experts."""

import json
import math
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...experts.adapter import METADATA_FILE
from ...experts.base_model import Base
from ...experts.federated.accounting import PrivacyPlan
from ...experts.federated.bank import EXPERT_FOLDER, WarmBase
from ...experts.federated.partition import Parts, by_dirichlet
from ...experts.federated.randomness import Randomness
from ...experts.federated.server_app import ServerJob
from ...experts.federated.settings import FederatedSettings
from ...experts.federated.simulation import simulate
from ...experts.provenance import source_commit
from ...experts.tasks import Example, get_task
from ...experts.tasks.suites import get_suite
from ..evaluate import evaluate_together
from ..models import open_adapter, open_base
from .plan import FEDERATED_ARMS, XBRL_TASKS, Cell, FederatedPlan

SUITE = "embedded"
EVERYBODY = "everybody"
"""Name of the one party of a central training."""


class LessNoise(Randomness):
    """The operating system's numbers with smaller normal ones, as if the bank had more records.

    A bank with m times as many records takes batches m times as large at the same sampling rate, and so adds
    the same noise to a sum m times as large. It is an estimate of utility, and protects nobody.
    """

    def __init__(self, times: float) -> None:
        system = Randomness.system()
        super().__init__(system._read)
        self.times = times

    def normal(self, shape: tuple[int, ...]) -> Any:
        """Return normal numbers of a deviation of 1 / times."""
        return super().normal(shape) / self.times


def training_records(plan: FederatedPlan) -> dict[str, list[Example]]:
    """Return the records of each task that banks get; those of the last companies are held out."""
    suite, kept = get_suite(SUITE), plan.train_examples - plan.held_out
    return {task: suite.examples(task, "train")[:kept] for task in XBRL_TASKS}


def held_out_records(plan: FederatedPlan) -> list[Example]:
    """Return records of companies that no bank has."""
    suite = get_suite(SUITE)
    trained = {example.group for examples in training_records(plan).values() for example in examples}
    kept = plan.train_examples - plan.held_out
    held = [
        example
        for task in XBRL_TASKS
        for example in suite.examples(task, "train")[kept : plan.train_examples]
    ]
    return [example for example in held if example.group not in trained]


def divided(plan: FederatedPlan, cell: Cell) -> Parts:
    """Return each party's records."""
    records = training_records(plan)
    if cell.arm == "central":
        return {EVERYBODY: [example for task in XBRL_TASKS for example in records[task]]}
    return by_dirichlet(records, plan.banks, cell.alpha, seed=cell.seed, smallest=64)


def train_cell(plan: FederatedPlan, cell: Cell, parts: Parts, base: Base, folder: Path) -> list[Path]:
    """Train and return the folders of all experts that came out: one for all, or one of each bank.

    Args:
        plan: Sizes.
        cell: What to train.
        parts: Each party's records.
        base: The base.
        folder: Of this cell; a finished training is not repeated, a killed one goes on.
    """
    settings = plan.settings(cell)
    together = [parts] if cell.arm != "local" else [{name: part} for name, part in parts.items()]
    experts = []
    for group in together:
        name = next(iter(group)) if cell.arm == "local" else "federation"
        out = folder / name / "expert"
        if not (out / METADATA_FILE).is_file():
            _simulate(settings, group, base, out, folder / name / "banks", cell.more_records)
        if cell.arm == "fedsa":
            experts += sorted(
                path.parent
                for path in (folder / name / "banks").glob(f"*/*/{EXPERT_FOLDER}/*.json")
                if path.name == METADATA_FILE
            )
        else:
            experts.append(out)
    return experts


def run_cell(plan: FederatedPlan, cell: Cell, base: Base, folder: Path) -> dict[str, Any]:
    """Train and ask one cell.

    Returns:
        Its settings, `scores` (task -> one score from 0 to 100 a question, the mean over the experts where
        there are several), `privacy` (of each party: records, noise, epsilon by both accountants), bytes and
        seconds.
    """
    parts, settings = divided(plan, cell), plan.settings(cell)
    started = time.monotonic()
    experts = train_cell(plan, cell, parts, base, folder)
    trained = time.monotonic() - started
    privacy = [privacy_of(settings, len(part)) for part in parts.values()] if settings.is_private else []
    record: dict[str, Any] = {
        "key": cell.key,
        "arm": cell.arm,
        "alpha": cell.alpha,
        "epsilon": cell.epsilon if math.isfinite(cell.epsilon) else "inf",
        "seed": cell.seed,
        "more_records": cell.more_records,
        "records": {name: len(part) for name, part in parts.items()},
        "scores": mean_scores([ask(base, expert, plan.test_examples) for expert in experts]),
        "privacy": privacy,
        "train_seconds": round(trained, 1),
        "ask_seconds": round(time.monotonic() - started - trained, 1),
        "commit": source_commit(),
    }
    if cell.arm in FEDERATED_ARMS:
        record |= _traffic(folder / "federation" / "expert")
    # Adapters and ledgers are small, but there are many; the numbers are what stays.
    for leftover in folder.glob("*/banks"):
        shutil.rmtree(leftover)
    return record


def ask(base: Base, expert: Path | None, count: int) -> dict[str, list[float]]:
    """Return the scores, 0 to 100, of an expert or of the base on each task's first test questions."""
    suite = get_suite(SUITE)
    asked = [(get_task(task), suite.examples(task, "test")[:count]) for task in XBRL_TASKS]
    with open_base(base) if expert is None else open_adapter(expert, base) as model:
        answered = evaluate_together(model, base, asked, label="expert")
    return {task: [100 * one.score for one in answered[task][0]] for task in XBRL_TASKS}


def mean_scores(answered: Sequence[Mapping[str, Sequence[float]]]) -> dict[str, list[float]]:
    """Return each question's mean score over several experts."""
    return {
        task: np.mean([scores[task] for scores in answered], axis=0).round(6).tolist() for task in answered[0]
    }


def privacy_of(settings: FederatedSettings, records: int) -> dict[str, float | int]:
    """Return the noise of one party and its epsilon by both accountants."""
    plan = PrivacyPlan.solve(
        epsilon=settings.epsilon,
        delta=settings.delta,
        n_examples=records,
        batch_size=min(settings.batch_size, records),
        steps=settings.rounds * settings.local_steps,
    )
    return {
        "records": records,
        "noise_multiplier": plan.noise_multiplier,
        "sample_rate": plan.sample_rate,
        "steps": plan.steps,
        "delta": plan.delta,
        "prv": plan.prv,
        "pld": plan.pld,
    }


def _simulate(
    settings: FederatedSettings, parts: Parts, base: Base, out: Path, banks: Path, more_records: float
) -> None:
    job = ServerJob(settings, out, "xbrl")
    randomness = None if more_records == 1 else lambda _run, _round: LessNoise(more_records)
    simulate(job, parts, WarmBase(base), banks, randomness=randomness)


def _traffic(expert: Path) -> dict[str, Any]:
    """Return seconds of a round and bytes of a bank in it, from what the server wrote down."""
    rounds = json.loads((expert / METADATA_FILE).read_text(encoding="utf-8"))["federated"]["rounds"]
    answers = sum(len(entry["banks"]) for entry in rounds)
    return {
        "rounds": len(rounds),
        "rounds_accepted": sum(entry["accepted"] for entry in rounds),
        "seconds_per_round": round(sum(entry["seconds"] for entry in rounds) / len(rounds), 3),
        "bytes_up_per_bank": round(sum(entry["bytes_up"] for entry in rounds) / max(1, answers)),
        "bytes_down_per_bank": round(sum(entry["bytes_down"] for entry in rounds) / max(1, answers)),
    }
