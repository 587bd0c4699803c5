"""Experts merged into one adapter, once and for all questions."""

from __future__ import annotations

from ..layout import expert_part
from ..models import open_adapter, open_uniform
from .method import Method, experts_of

LORAHUB = "lorahub"
MERGES = {
    "linear": (
        "Linear merge",
        "Experts' A and B matrices averaged apart, as most tools do; a rank-r stand-in for the average with "
        "cross terms.",
        "#a78bfa",
    ),
    "svd": ("SVD merge", "The average of the experts' updates, cut to one expert's rank.", "#8b5cf6"),
    "ties": ("TIES merge", "TIES: small entries trimmed, signs elected, the rest averaged.", "#6d28d9"),
    "dare": ("DARE merge", "DARE: entries dropped at random, the rest scaled up, then averaged.", "#c084fc"),
    "cat": (
        "CAT merge",
        "LoRA Soups' CAT: one weight for each expert and layer, learned from a few examples of all tasks.",
        "#5b21b6",
    ),
}
"""Title, explanation and colour of each merge beside the uniform average."""


def uniform(tasks: tuple[str, ...]) -> Method:
    """The exact average."""
    return Method(
        name="uniform",
        title="Uniform average",
        explanation="All experts at once, each with the same weight 1/n: the mixture without a router.",
        colour="#7c6fb0",
        family="merge",
        open=lambda call: open_uniform(experts_of(call.run, tasks), call.base),
        parts=tuple(map(expert_part, tasks)),
    )


def merge(name: str) -> Method:
    """A merge that is the same for all tasks."""
    title, explanation, colour = MERGES[name]
    return Method(
        name=name,
        title=title,
        explanation=explanation,
        colour=colour,
        family="merge",
        open=lambda call: open_adapter(call.run.part(merge_part(name)), call.base),
        parts=(merge_part(name),),
    )


def lorahub() -> Method:
    """Weights found for each task by search without gradients."""
    return Method(
        name=LORAHUB,
        title="LoraHub",
        explanation="For each task one weight an expert, found on a few of its examples by search without "
        "gradients; told the task.",
        colour="#4c1d95",
        family="merge",
        open=lambda call: open_adapter(call.run.part(merge_part(f"{LORAHUB}/{call.task}")), call.base),
        parts=(merge_part(f"{LORAHUB}/{{task}}"),),
        told="task",
    )


def merge_part(name: str) -> str:
    """Name of a merged adapter among the trained parts."""
    return f"merges/{name}"
