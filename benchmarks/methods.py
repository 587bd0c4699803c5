"""The table of methods: what each one is, how its model is made, and which trained parts it needs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial

from torch import nn

from ..experts.base_model import Base
from .layout import RunLayout
from .models import open_adapter, open_base, open_mixture, open_uniform

Opener = Callable[[RunLayout, Base, "int | None"], AbstractContextManager[nn.Module]]
EXPERT_PREFIX = "expert:"
XLORA = "xlora"
LAST_TRUNK = 7
"""Most blocks before the router of a trunk that is compared."""
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
    "previous": (
        "Mode previous",
        "One pass over the weights a token: every token gets the scalings of the token before it.",
        "#9f6b9c",
    ),
    "prompt": (
        "Mode prompt",
        "One pass after the prompt, whose last token's scalings hold for the whole answer.",
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
}
"""Title, explanation and colour of each method with a router; what it looks like stands in the budget."""


@dataclass(frozen=True, kw_only=True)
class Method:
    """One way to answer all tasks.

    Attributes:
        name: Its name in files.
        title: Its name in reports.
        explanation: One sentence for a newcomer.
        colour: Its colour in every plot.
        open: Makes its model from (run, base, router seed); None if its answers are taken from other methods.
        parts: Names of the training jobs whose results it needs; `{seed}` stands for the router seed.
        seeds: Router seeds it is run with, (None,) if it has no router.
    """

    name: str
    title: str
    explanation: str
    colour: str
    open: Opener | None
    parts: tuple[str, ...] = ()
    seeds: tuple[int | None, ...] = (None,)

    @property
    def has_seeds(self) -> bool:
        """Whether it is run once for each router seed."""
        return self.seeds != (None,)


def expert_job(task: str) -> str:
    """Name of the job that trains the expert of a task."""
    return f"experts/{task}"


def router_job(method: str, seed: int) -> str:
    """Name of the job that trains the router of a seed for a method."""
    return f"routers/{method}/{seed}"


def make_methods(
    tasks: Sequence[str], router_seeds: Sequence[int], routers: Collection[str] = (XLORA,)
) -> dict[str, Method]:
    """All methods on a set of tasks, by name, in the order of reports: from the base up to the oracle.

    Args:
        tasks: The tasks, each with an expert.
        router_seeds: Seeds of every method with a router.
        routers: Which methods of `ROUTERS` there are.
    """
    experts = tuple(expert_job(task) for task in tasks)
    methods = (
        Method(
            name="base",
            title="Base",
            explanation="The base model without any adapter.",
            colour="#64748b",
            open=lambda run, base, seed: open_base(base),
        ),
        *(_expert(task) for task in tasks),
        Method(
            name="uniform",
            title="Uniform average",
            explanation="All experts at once, each with the same weight 1/n: the mixture without a router.",
            colour="#7c6fb0",
            open=lambda run, base, seed: open_uniform({task: run.expert(task) for task in tasks}, base),
            parts=experts,
        ),
        Method(
            name="multitask",
            title="Multi-task LoRA",
            explanation=(
                "One LoRA adapter trained on all tasks together, with as many parameters as all experts "
                "together and on as many examples."
            ),
            colour="#d97706",
            open=lambda run, base, seed: open_adapter(run.multitask, base),
            parts=("multitask",),
        ),
        *(_router(name, router_seeds) for name in ROUTERS if name in routers),
        Method(
            name="oracle",
            title="Oracle",
            explanation="The expert of the right task. The only method that is told which task it is.",
            colour="#111827",
            open=None,
        ),
    )
    return {method.name: method for method in methods}


def _expert(task: str) -> Method:
    return Method(
        name=f"{EXPERT_PREFIX}{task}",
        title=f"Expert {task}",
        explanation=f"The expert of {task} alone, asked about every task.",
        colour="#b08968",
        open=lambda run, base, seed: open_adapter(run.expert(task), base),
        parts=(expert_job(task),),
    )


def _router(name: str, seeds: Sequence[int]) -> Method:
    title, explanation, colour = ROUTERS[name]
    return Method(
        name=name,
        title=title,
        explanation=explanation,
        colour=colour,
        open=partial(_open_router, name),
        parts=(f"routers/{name}/{{seed}}",),
        seeds=tuple(seeds),
    )


def _open_router(
    method: str, run: RunLayout, base: Base, seed: int | None
) -> AbstractContextManager[nn.Module]:
    if seed is None:
        raise ValueError("a mixture with a trained router is opened by its router's seed")
    return open_mixture(run.router(method, seed), base)
