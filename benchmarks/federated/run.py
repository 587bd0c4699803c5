"""Run the comparison: `python -m finlora.benchmarks.federated.run FOLDER`. Goes on where it was stopped.

Each training is one line of `cells.jsonl`; the report is written again after each.
"""

import argparse
import json
import logging
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from filelock import FileLock, Timeout

from ...experts.base_model import load_base
from ..results import json_lines, read_json_lines
from .attack import run_attacks
from .cell import ask, run_cell
from .costs import COSTS_FILE, measure_costs
from .plan import FederatedPlan
from .report import build_report

CELLS_FILE = "cells.jsonl"
PLAN_FILE = "plan.json"
BASE_KEY = "base"

logger = logging.getLogger(__name__)


def run(folder: Path, plan: FederatedPlan, *, most: int | None = None) -> None:
    """Train what is missing, and report.

    Args:
        folder: Of the whole comparison.
        plan: What to train.
        most: Trainings of this call at most; all by default.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / CELLS_FILE
    (folder / PLAN_FILE).write_text(json.dumps(asdict(plan), indent=2, default=str) + "\n", encoding="utf-8")
    done = {record["key"] for record in read_json_lines(file)} if file.exists() else set()
    base, trained = load_base("embedded", "nf4"), 0
    if BASE_KEY not in done:
        _append(file, {"key": BASE_KEY, "arm": "base", "scores": ask(base, None, plan.test_examples)})
    for cell in plan.cells():
        if most is not None and trained >= most:
            break
        # Several processes may work on one folder: each takes what nobody has taken.
        lock = FileLock(folder / f".{cell.key}.lock")
        try:
            with lock.acquire(blocking=False):
                if cell.key not in {record["key"] for record in read_json_lines(file)}:
                    logger.info("training %s", cell.key)
                    _append(file, run_cell(plan, cell, base, folder / "trainings" / cell.key))
                    build_report(folder)
                    trained += 1
        except Timeout:
            continue
    build_report(folder)


def attack(folder: Path, plan: FederatedPlan) -> None:
    """Train the two experts that are attacked, attack them, and report."""
    folder.mkdir(parents=True, exist_ok=True)
    run_attacks(folder, plan, load_base("embedded", "nf4"))
    if (folder / CELLS_FILE).exists():
        build_report(folder)


def _append(file: Path, record: dict) -> None:
    """Add one line in one write, so that a kill leaves no half of it."""
    descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(descriptor, json_lines([record]).encode())
    finally:
        os.close(descriptor)


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--most", type=int, help="trainings of this call; all by default")
    parser.add_argument("--costs", type=int, metavar="VALUES", help="only measure masks and a proof")
    parser.add_argument("--attack", action="store_true", help="only attack; needs none of the trainings")
    words = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    if words.costs:
        words.folder.mkdir(parents=True, exist_ok=True)
        measure_costs(words.folder / COSTS_FILE, values=words.costs, banks=FederatedPlan.banks, proof=True)
    elif words.attack:
        attack(words.folder, FederatedPlan())
    else:
        run(words.folder, FederatedPlan(), most=words.most)


if __name__ == "__main__":
    main()
