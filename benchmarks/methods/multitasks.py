"""One adapter trained on many tasks: what a mixture of experts has to beat."""

from __future__ import annotations

from ...experts.tasks import get_task
from ..models import open_adapter
from .method import Method

MULTITASK = "multitask"
PLANS = {
    MULTITASK: (
        "Multi-task LoRA",
        "One LoRA adapter trained on all tasks together, with as many parameters as all experts together and "
        "on as many examples.",
        "#d97706",
    ),
    "multitask_rank": (
        "Multi-task LoRA, same rank",
        "The same with the rank of a single expert, so with the parameters of one.",
        "#f59e0b",
    ),
    "multitask_sampled": (
        "Multi-task LoRA, sampled",
        "As large as all experts; every batch draws each task in proportion to its number of examples to the "
        "power 1/2 (temperature 2), not each as often as its expert sees it.",
        "#b45309",
    ),
}
CATEGORY = "multitask_category"


def multitask(name: str) -> Method:
    """One adapter of all tasks."""
    title, explanation, colour = PLANS[name]
    return Method(
        name=name,
        title=title,
        explanation=explanation,
        colour=colour,
        family="multitask",
        open=lambda call: open_adapter(call.run.part(name), call.base),
        parts=(name,),
    )


def one_a_category(tasks: tuple[str, ...]) -> Method:
    """An adapter for each category, as FinLoRA trains them."""
    return Method(
        name=CATEGORY,
        title="Multi-task LoRA per category",
        explanation="One adapter for each of FinLoRA's categories, as large as the experts of the category "
        "together; told the category.",
        colour="#fbbf24",
        family="multitask",
        open=lambda call: open_adapter(call.run.part(category_part(call.task)), call.base),
        parts=tuple(sorted({category_part(task) for task in tasks})),
        told="category",
    )


def category_part(task: str) -> str:
    """Name of the adapter of a task's category among the trained parts."""
    return f"categories/{get_task(task).category}"
