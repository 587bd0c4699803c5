"""A whole benchmark in seconds: two toy tasks on a tiny random base."""

from pathlib import Path

from finlora.benchmarks.budgets import Budget, RouterPlan
from finlora.benchmarks.cross_task import benchmark
from finlora.benchmarks.layout import RunLayout
from finlora.benchmarks.results import read_results
from finlora.experts.settings import ExpertSettings
from finlora.experts.tasks import Example
from finlora.experts.tasks.suites import SUITES, Suite
from finlora.moe.mode import Mode
from finlora.router.settings import RouterTrainingSettings, XLoRASettings

BUDGET = Budget(
    train_examples=24,
    test_examples=6,
    router_examples=12,
    routing_examples=3,
    answer_batch_size=4,
    expert=ExpertSettings(
        targets=("up_proj", "down_proj"),
        learning_rate=5e-2,
        epochs=12.0,
        batch_size=8,
        save_steps=5,
        log_steps=5,
    ),
    router=RouterTrainingSettings(epochs=2.0, batch_size=8, save_steps=2, log_steps=1),
    routers={
        "xlora": RouterPlan(router=XLoRASettings(per_module=False)),
        "xlora_token": RouterPlan(),
        "prompt": RouterPlan(mode=Mode(name="prompt")),
    },
)
"""Small enough for a test; the experts still learn which of their answers is more frequent."""

ANSWERS = {"headline": ("Yes", "No"), "sentiment": ("positive", "negative")}


def build(task: str, split: str) -> list[Example]:
    """Questions of one letter, answered mostly by the task's first word; pairs of them belong together."""
    first, second = ANSWERS[task]
    return [
        Example(f"{task} {split} {index:02}:", second if index % 4 == 0 else first, f"pair {index // 2}")
        for index in range(24 if split == "train" else 8)
    ]


def run(base: str, runs: Path, **changes: object) -> RunLayout:
    """Run the benchmark on a base folder, or go on with it."""
    SUITES["toy"] = Suite(name="toy", title="Toy tasks", tasks=tuple(ANSWERS), build=build)
    settings = {"router_seeds": (0, 1), "budget": BUDGET, "workers": 2, **changes}
    return benchmark("toy", base=base, runs=runs, **settings)  # pyright: ignore[reportArgumentType]


def scores(layout: RunLayout) -> dict[tuple[object, ...], tuple[object, ...]]:
    """All numbers of a run that do not depend on the clock."""
    return {
        (one.method, one.task, one.metric, one.seed): (one.value, one.low, one.high, one.n)
        for one in read_results(layout.results)
        if one.metric == "score" or one.metric.startswith(("difference:", "ratio:"))
    }
