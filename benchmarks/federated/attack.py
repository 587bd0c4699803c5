"""Attacks on two experts: one that was overfitted without privacy, and the federated one of epsilon 4.

Both were trained with canaries among their records. The first shows that the attacks work; only then does it
mean anything that they find nothing in the second.
"""

import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...experts.adapter import METADATA_FILE
from ...experts.atomic_write import write_text
from ...experts.base_model import Base
from ...experts.federated.audit.canaries import Canary, invent_canaries
from ...experts.federated.audit.run import audit_expert
from ...experts.federated.bank import WarmBase
from ...experts.federated.partition import Parts
from ...experts.federated.server_app import ServerJob
from ...experts.federated.settings import FederatedSettings
from ...experts.federated.simulation import simulate
from ...experts.tasks import Example
from ..results import json_lines, read_json_lines
from .cell import EVERYBODY, divided, held_out_records, training_records
from .plan import Cell, FederatedPlan

ATTACKS_FILE = "attacks.jsonl"
EPSILON = 4.0
OVERFITTED = "overfitted without privacy"
PRIVATE = f"federated, epsilon {EPSILON:g}"
OVERFIT_TASK = "xbrl_formula_calc"
MEMBERS = 64
"""Records of the overfitted expert."""
OVERFIT = FederatedSettings(
    adapter="fedit",
    rank=16,
    alpha=32,
    rounds=1,
    local_steps=60,
    batch_size=32,
    learning_rate=5e-3,
    banks=1,
    min_banks=1,
    timeout=24 * 3600.0,
    max_norm=1e6,
)
"""Seventeen passes over each record."""
CANARIES = 60


def run_attacks(folder: Path, plan: FederatedPlan, base: Base) -> None:
    """Train, attack and write `attacks.jsonl`, what is there already excepted."""
    file = folder / ATTACKS_FILE
    records = read_json_lines(file) if file.exists() else []
    for name, attack in ((OVERFITTED, attack_overfitted), (PRIVATE, attack_private)):
        if name not in {record["expert"] for record in records}:
            records.append({"expert": name} | attack(folder / "attacks", plan, base))
            write_text(file, json_lines(records))


def attack_overfitted(folder: Path, plan: FederatedPlan, base: Base) -> dict[str, Any]:
    """Attack an expert that saw few records many times."""
    companies = training_records(plan)[OVERFIT_TASK]
    members, others = companies[:MEMBERS], companies[MEMBERS : 2 * MEMBERS]
    canaries = invent_canaries(CANARIES, seed=0)
    parts = {EVERYBODY: [*members, *_planted(canaries)]}
    return _attacked(folder / "overfitted", OVERFIT, parts, members, others, canaries, base)


def attack_private(folder: Path, plan: FederatedPlan, base: Base) -> dict[str, Any]:
    """Attack a federated expert; the canaries are in its smallest bank, where a record weighs most."""
    cell = Cell("core", plan.alphas[0], EPSILON, plan.seeds[0])
    parts = divided(plan, cell)
    others = held_out_records(plan)
    everybody = [example for part in parts.values() for example in part]
    members = random.Random(0).sample(everybody, min(len(everybody), len(others)))
    canaries = invent_canaries(CANARIES, seed=0)
    smallest = min(parts, key=lambda name: len(parts[name]))
    parts[smallest] = [*parts[smallest], *_planted(canaries)]
    return _attacked(folder / "private", plan.settings(cell), parts, members, others, canaries, base)


def _attacked(
    folder: Path,
    settings: FederatedSettings,
    parts: Parts,
    members: Sequence[Example],
    others: Sequence[Example],
    canaries: Sequence[Canary],
    base: Base,
) -> dict[str, Any]:
    expert = folder / "expert"
    if not (expert / METADATA_FILE).is_file():
        simulate(ServerJob(settings, expert, "xbrl"), parts, WarmBase(base), folder / "banks")
    report = audit_expert(expert, base, members=members, others=others, canaries=canaries)
    return report.record() | {"is_private": math.isfinite(report.epsilon)}


def _planted(canaries: Sequence[Canary]) -> list[Example]:
    return [one.example for one in canaries if one.included]
