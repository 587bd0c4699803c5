"""Routers inside the layers, which learn each expert's part from that expert alone, if at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from torch import nn

from ...moe.bank import ExpertBank
from ...moe.mixture import MixtureForCausalLM
from ...router.arrow import make_arrow
from ...router.phatgoose import join_gates
from ..layout import expert_part
from .method import Call, Method, experts_of

PHATGOOSE = "phatgoose"
ARROW_TOP_K = 3
"""Most experts of a token in Arrow, as in PEFT."""
ARROWS: dict[str, tuple[str, Literal["outputs", "matrices"], str, str]] = {
    "arrow": (
        "Arrow",
        "outputs",
        "Each layer asks each expert's strongest input direction; no training. Outputs of the three best "
        "experts are mixed, as in PEFT.",
        "#65a30d",
    ),
    "arrow_matrices": (
        "Arrow on matrices",
        "matrices",
        "The same, mixing A and B matrices apart, as in mttl.",
        "#84cc16",
    ),
}


def arrow(name: str, tasks: tuple[str, ...]) -> Method:
    """Arrow, which trains nothing."""
    title, combine, explanation, colour = ARROWS[name]
    return Method(
        name=name,
        title=title,
        explanation=explanation,
        colour=colour,
        family="router",
        open=lambda call: _open_arrow(call, tasks, combine),
        parts=tuple(map(expert_part, tasks)),
    )


def phatgoose(tasks: tuple[str, ...]) -> Method:
    """PHATGOOSE, which trains each expert's gate on that expert's examples alone."""
    return Method(
        name=PHATGOOSE,
        title="PHATGOOSE",
        explanation="Each layer has a gate an expert, trained on that expert's own task alone; the two best "
        "experts of a token are mixed.",
        colour="#3f6212",
        family="router",
        open=lambda call: _open_phatgoose(call, tasks),
        parts=tuple(map(gate_part, tasks)),
    )


def gate_part(task: str) -> str:
    """Name of the gate of a task's expert among the trained parts."""
    return f"gates/{task}"


@contextmanager
def _open_phatgoose(call: Call, tasks: tuple[str, ...]) -> Iterator[nn.Module]:
    bank = ExpertBank.from_folders(experts_of(call.run, tasks), call.base)
    gates = {task: call.run.part(gate_part(task)) for task in tasks}
    router = join_gates(bank, gates, top_k=call.budget.gates.top_k)
    yield MixtureForCausalLM.build(call.base, bank, router)


@contextmanager
def _open_arrow(
    call: Call, tasks: tuple[str, ...], combine: Literal["outputs", "matrices"]
) -> Iterator[nn.Module]:
    yield make_arrow(call.base, experts_of(call.run, tasks), top_k=ARROW_TOP_K, combine=combine)
