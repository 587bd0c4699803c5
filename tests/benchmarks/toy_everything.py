"""A benchmark of four toy tasks in two categories, with methods of every kind and in every protocol."""

import dataclasses
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from finlora.benchmarks.budgets import Budget, RouterPlan
from finlora.benchmarks.cross_task import benchmark
from finlora.benchmarks.layout import RunLayout
from finlora.benchmarks.protocols import PROTOCOLS
from finlora.experts.settings import ExpertSettings
from finlora.experts.tasks import Example
from finlora.experts.tasks.suites import SUITES, Suite
from finlora.router.settings import PhatgooseSettings, RouterTrainingSettings, XLoRASettings

LORAHUB = ("lorahub",) if find_spec("nevergrad") else ()
"""LoraHub searches with nevergrad, which a plain installation lacks."""
FURTHER = ("few_shot", "classifier", "random", "svd", *LORAHUB, "multitask_rank", "multitask_category")
BUDGET = Budget(
    train_examples=24,
    test_examples=6,
    router_examples=8,
    routing_examples=2,
    answer_batch_size=6,
    merge_examples=3,
    expert=ExpertSettings(
        targets=("up_proj", "down_proj"), learning_rate=5e-2, epochs=4.0, batch_size=8, save_steps=20
    ),
    router=RouterTrainingSettings(max_steps=3, batch_size=4, save_steps=3, log_steps=1),
    routers={
        "xlora": RouterPlan(router=XLoRASettings(per_module=False)),
        "xlora_null": RouterPlan(router=XLoRASettings(null_expert=True)),
    },
    foreign_text=True,
    not_task_by_task=(),
    gates=PhatgooseSettings(max_steps=3, batch_size=4, save_steps=3, log_steps=1),
    further=(*FURTHER, "random_router", "arrow", "phatgoose", "xlora_added"),
    protocols=tuple(PROTOCOLS),
    only_in_distribution=("multitask_rank", "multitask_category", "xlora_added", "xlora_null"),
)
QUESTIONS = {
    "headline": (
        "Does the news headline talk about {0}? Please choose an answer from {{Yes/No}}.",
        "Yes",
        "No",
    ),
    "sentiment": (
        "What is the sentiment of this news? Please choose an answer from {{good/bad}}. {0}",
        "good",
        "bad",
    ),
    "finer": ('What is the best us gaap tag for entity "{0}" in sentence: "{0}"?', "Cash", "Debt"),
    "xbrl_term": ("Explain this XBRL term briefly in one sentence: {0}. Answer:", "cash", "debt"),
}


def build(task: str, split: str) -> list[Example]:
    """Prompts that look like the real ones, answered mostly by the task's first word."""
    prompt, first, second = QUESTIONS[task]
    return [
        Example(
            prompt.format(f"{split} {index:02}"), second if index % 4 == 0 else first, f"pair {index // 2}"
        )
        for index in range(24 if split == "train" else 8)
    ]


def run(base: str, runs: Path, name: str = "everything", **changes: Any) -> RunLayout:
    """Run the benchmark on a base folder, or go on with it."""
    SUITES["toy"] = Suite(name="toy", title="Toy tasks", tasks=tuple(QUESTIONS), build=build)
    settings = {"router_seeds": (0,), "budget": BUDGET, "workers": 2, **changes}
    return benchmark("toy", name=name, base=base, runs=runs, **settings)


def small(**changes: Any) -> Budget:
    """The same budget with something changed."""
    return dataclasses.replace(BUDGET, **changes)
