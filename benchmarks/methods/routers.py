"""Mixtures: all experts at hand, weighed anew for every token."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import nn

from ...router.train import new_mixture
from ..layout import expert_part, router_part
from ..models import open_mixture
from .method import XLORA, Call, Method, experts_of

LAST_TRUNK = 7
"""Most blocks before the router of a trunk that is compared."""
RANDOM = "random_router"
ADDED = "xlora_added"
WORDINGS = "xlora_wordings"
TRUNK_WORDINGS = "trunk_wordings"
TRUNK_AUTHORS = "trunk_authors"
ROUTERS = {
    "xlora_token": (
        "X-LoRA, token alone",
        "X-LoRA as it was published: the router sees each token's hidden state and nothing else.",
        "#6aa5a0",
    ),
    XLORA: (
        "X-LoRA",
        "All experts, mixed anew for every token and layer by a small trained router; it sees the token's "
        "hidden state and, through attention, those of the tokens before it.",
        "#0f766e",
    ),
    WORDINGS: (
        "X-LoRA, several wordings",
        "X-LoRA whose router learned from questions with instructions in several wordings, none of them one "
        "of the protocol with reworded instructions, and with parts of the prompts hidden.",
        "#047857",
    ),
    "xlora_top2": (
        "X-LoRA, two experts",
        "X-LoRA with the two strongest experts of each token and layer alone, their scalings brought to a "
        "sum of 1.",
        "#14b8a6",
    ),
    "xlora_shared": (
        "X-LoRA, one set for all layers",
        "X-LoRA whose router gives one set of scalings a token, the same for all layers.",
        "#5eead4",
    ),
    "xlora_null": (
        "X-LoRA with a null expert",
        "X-LoRA with one more output, whose share goes to the plain base.",
        "#134e4a",
    ),
    "previous": (
        "Mode previous",
        "One pass over the weights a token: every token gets the scalings of the token before it.",
        "#9f6b9c",
    ),
    "prompt": (
        "Mode prompt",
        "One pass after the prompt, whose last token's scalings hold for the whole answer: one choice a "
        "sequence.",
        "#be4b6c",
    ),
    "prompt_top2": (
        "Mode prompt, two experts",
        "Mode prompt, with the two strongest experts of each layer alone.",
        "#d98aa0",
    ),
    **{
        f"trunk_{block}": (
            f"Mode trunk after {block} blocks",
            "One pass: the router reads what the first blocks give, and experts act in all later ones.",
            "#4a7fb5",
        )
        for block in range(LAST_TRUNK + 1)
    },
    TRUNK_WORDINGS: (
        "Mode trunk, several wordings",
        "Mode trunk after 0 blocks, whose router reads the words themselves; it learned as that of X-LoRA, "
        "several wordings.",
        "#1e40af",
    ),
    TRUNK_AUTHORS: (
        "Mode trunk, wordings of ten authors",
        "As mode trunk, several wordings, with instructions as ten further authors word them among those "
        "that it learned from.",
        "#312e81",
    ),
}
"""Title, explanation and colour of each method with a router; what it looks like stands in the budget."""


def router(name: str, seeds: Sequence[int]) -> Method:
    """A mixture with a trained router."""
    title, explanation, colour = ROUTERS[name]
    return Method(
        name=name,
        title=title,
        explanation=explanation,
        colour=colour,
        family="router",
        open=lambda call: open_mixture(call.run.router(name, call.seed), call.base),
        parts=(router_part(name, "{seed}"),),
        seeds=tuple(seeds),
    )


def random_router(tasks: tuple[str, ...], seeds: Sequence[int]) -> Method:
    """X-LoRA before its training: what the shape alone is worth."""
    return Method(
        name=RANDOM,
        title="Untrained router",
        explanation="X-LoRA with the router's random initial weights: the control of its training.",
        colour="#a8a29e",
        family="router",
        open=lambda call: _open_untrained(call, tasks),
        parts=tuple(map(expert_part, tasks)),
        seeds=tuple(seeds),
    )


def added(seeds: Sequence[int]) -> Method:
    """X-LoRA to which the expert of the task that is asked was added last."""
    return Method(
        name=ADDED,
        title="X-LoRA, expert added later",
        explanation="For each task the X-LoRA that was trained without it, to which its expert was then "
        "added: only that expert's rows of the router's last layer were trained.",
        colour="#0d9488",
        family="router",
        open=lambda call: open_mixture(call.run.part(added_part(call.task, call.seed)), call.base),
        parts=(added_part("{task}", "{seed}"),),
        seeds=tuple(seeds),
    )


def added_part(task: str, seed: int | str | None) -> str:
    """Name of the mixture to which a task's expert was added, among the trained parts."""
    return f"added/{task}/{seed}"


@contextmanager
def _open_untrained(call: Call, tasks: tuple[str, ...]) -> Iterator[nn.Module]:
    plan = call.budget.routers[XLORA]
    assert call.seed is not None
    yield new_mixture(
        call.base, experts_of(call.run, tasks), plan.router, seed=call.seed, mode=plan.mode
    ).eval()
