"""What everything is measured against: the base, single experts, and the right expert."""

from __future__ import annotations

from collections.abc import Sequence

from ..layout import EXPERT_PREFIX, expert_part
from ..models import open_adapter, open_base
from .method import Method

SHOTS = 3


def base() -> Method:
    """The base alone."""
    return Method(
        name="base",
        title="Base",
        explanation="The base model without any adapter.",
        colour="#64748b",
        open=lambda call: open_base(call.base),
    )


def few_shot() -> Method:
    """The base, shown how it is done."""
    return Method(
        name="few_shot",
        title=f"Base, {SHOTS} examples",
        explanation=f"The base with up to {SHOTS} solved training examples of the task before each question, "
        "as many as fit; told the task.",
        colour="#94a3b8",
        open=lambda call: open_base(call.base),
        told="task",
        shots=SHOTS,
    )


def expert(task: str) -> Method:
    """One expert, asked about everything."""
    return Method(
        name=f"{EXPERT_PREFIX}{task}",
        title=f"Expert {task}",
        explanation=f"The expert of {task} alone, asked about every task.",
        colour="#b08968",
        open=lambda call: open_adapter(call.run.expert(task), call.base),
        parts=(expert_part(task),),
    )


def oracle(tasks: Sequence[str]) -> Method:
    """The right expert."""
    return Method(
        name="oracle",
        title="Oracle",
        explanation="The expert of the right task. It is told which task it is.",
        colour="#111827",
        answers_of=lambda task: f"{EXPERT_PREFIX}{task}",
        parts=tuple(map(expert_part, tasks)),
        told="task",
    )
