"""FinLoRA's published scores beside those of a run: another base model, so never compared, only shown."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from ..experts.errors import FinLoraError
from ..experts.tasks import get_task
from ..experts.tasks.data_folder import data_file, data_folder
from .results import ResultIndex
from .tables import MISSING, Table, with_interval

FILE = "finlora/published_results.json"
DATASETS = {
    "fpb": "FPB",
    "fiqa": "FiQA SA",
    "tfns": "TFNS",
    "nwgi": "NWGI",
    "headline": "Headline",
    "ner": "NER",
    "finer": "FiNER",
    "fnxl": "FNXL",
    "xbrl_tags": "Tag Extraction",
    "xbrl_value": "Value Extraction",
    "xbrl_formula": "Formula Construction",
    "xbrl_formula_calc": "Formula Calculation",
    "financial_math": "Financial Math",
    "cfa_level1": "CFA 1",
    "cfa_level2": "CFA 2",
    "cfa_level3": "CFA 3",
    "cpa_reg": "CPA",
}
"""Name of each task in FinLoRA's tables. Scored by BERTScore there, and so left out: terms, FinanceBench."""
SETTINGS = {
    "base": "Llama 3.1 8B base (0-shot)",
    "single": "Llama 3.1 8B LoRA 8bit-r8 single-task",
    "multi": "Llama 3.1 8B LoRA 8bit-r8 multi-task",
}


def published_table(index: ResultIndex, tasks: Sequence[str]) -> Table | None:
    """FinLoRA's accuracies beside a run's scores; None where the file is absent or no task is in it.

    Args:
        index: The run's results.
        tasks: Its tasks.
    """
    accuracies = _read()
    rows = []
    for task in tasks:
        published = accuracies.get(DATASETS.get(task, ""), {})
        if published:
            theirs = [published.get(setting) for setting in SETTINGS.values()]
            ours = [index.get(method, task) for method in ("base", "oracle", "xlora")]
            rows.append(
                (
                    get_task(task).title,
                    *(MISSING if one is None else f"{one:.1f}" for one in theirs),
                    *map(with_interval, ours),
                )
            )
    headers = (
        "Task",
        "FinLoRA: Llama 3.1 8B",
        "FinLoRA: one LoRA a task",
        "FinLoRA: multi-task LoRA",
        "Here: base",
        "Here: one expert a task",
        "Here: X-LoRA",
    )
    return Table(headers, tuple(rows)) if rows else None


def _read() -> dict[str, dict[str, float]]:
    """Accuracy in percent by data set and setting."""
    try:
        path = data_file(data_folder(), FILE)
    except FinLoraError:
        return {}
    records: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["multi_task_table"]
    accuracies: dict[str, dict[str, float]] = {}
    for one in records:
        if one["metric"] == "accuracy_percent":
            accuracies.setdefault(one["dataset"], {})[one["setting"]] = one["value"]
    return accuracies
