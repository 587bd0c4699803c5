"""The run that notebooks look at: one that the user has, or else a tiny one that is made within minutes."""

from __future__ import annotations

import os
from pathlib import Path

from ..experts.errors import FinLoraError
from ..experts.settings import ExpertSettings
from ..router.settings import RouterTrainingSettings, XLoRASettings
from .budgets import Budget, RouterPlan
from .cross_task import benchmark
from .layout import RunLayout
from .methods import XLORA

RUN_VARIABLE = "FINLORA_RUN"
"""Environment variable that names the folder of a finished run."""
TINY_TASKS = ("xbrl_tags", "finer", "sentiment")
"""Two tasks that help each other, since both ask for a tag, and one that has nothing to do with them."""
TINY_BUDGET = Budget(
    train_examples=400,
    test_examples=16,
    router_examples=60,
    routing_examples=8,
    answer_batch_size=16,
    expert=ExpertSettings(max_steps=25, batch_size=8, learning_rate=5e-3),
    router=RouterTrainingSettings(
        max_steps=2, batch_size=8, task_temperature=100.0, label_steps=100, label_weight=0.5
    ),
    routers={XLORA: RouterPlan(router=XLoRASettings(depth=2, width=128, dropout=0.0, context_width=48))},
)
"""Enough that experts know their tasks a little; no number from it is worth reporting."""


def find_or_make_run(runs: Path | str = "runs") -> RunLayout:
    """Find the run that the variable FINLORA_RUN names, else `demo`, else `tiny`, which is made if need be.

    Args:
        runs: Folder of all runs.

    Returns:
        A finished run.

    Raises:
        FinLoraError: The folder that the variable names holds no finished run.
    """
    named = os.environ.get(RUN_VARIABLE)
    if named:
        layout = RunLayout(Path(named))
        if not layout.results.is_file():
            raise FinLoraError(
                f"{RUN_VARIABLE} names {named}, which holds no finished run; name another one, or unset it."
            )
        return layout
    for name in ("demo", "tiny"):
        layout = RunLayout(Path(runs) / name)
        if layout.results.is_file():
            return layout
    return benchmark(
        "embedded", name="tiny", tasks=TINY_TASKS, router_seeds=(0,), budget=TINY_BUDGET, runs=Path(runs)
    )
