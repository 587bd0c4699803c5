"""What was seen of a router at work, kept in the run's folder so that the report needs no model."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ...experts.atomic_write import write_json
from ...experts.tasks import Example
from ...moe.mixture import MixtureForCausalLM
from .read_scalings import TokenScalings, layer_names, read_scalings
from .routing_stats import TaskRouting, sum_up

DIGITS = 4


@dataclass(frozen=True)
class RouterLook:
    """A router on test questions.

    Attributes:
        experts: Names of the experts.
        layers: Names of the adapted linear layers, or one name for all.
        routing: Statistics of each task.
        questions: One question of each task, token by token.
    """

    experts: tuple[str, ...]
    layers: tuple[str, ...]
    routing: list[TaskRouting]
    questions: dict[str, TokenScalings]


def look_at(mixture: MixtureForCausalLM, examples: Mapping[str, Sequence[Example]]) -> RouterLook:
    """Read test questions of each task with a mixture.

    Args:
        mixture: A mixture with any router whose scalings are not negative.
        examples: Questions with their right answers, by task; of each task the shortest is kept token by
            token.
    """
    read = {task: list(read_scalings(mixture, asked)) for task, asked in examples.items()}
    routing = [sum_up(mixture, task, own) for task, own in read.items()]
    questions = {task: min(own, key=lambda one: len(one.tokens)) for task, own in read.items()}
    modules = next(iter(questions.values())).scalings.shape[1]
    return RouterLook(mixture.bank.expert_names, layer_names(mixture, modules), routing, questions)


def write_look(path: Path, look: RouterLook) -> None:
    """Write it as JSON, scalings to four digits."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(
        path,
        {
            "experts": look.experts,
            "layers": look.layers,
            "routing": [
                {
                    "task": one.task,
                    "tokens": one.tokens,
                    "entropy": _rounded(one.entropy),
                    "load": _rounded(one.load),
                    "agreement": None if one.agreement is None else _rounded(one.agreement),
                }
                for one in look.routing
            ],
            "questions": {
                task: {
                    "tokens": one.tokens,
                    "scalings": _rounded(one.scalings),
                    "predicts_answer": one.predicts_answer.tolist(),
                }
                for task, one in look.questions.items()
            },
        },
    )


def read_look(path: Path) -> RouterLook | None:
    """Read what `write_look` wrote; None if it is not there."""
    if not path.exists():
        return None
    values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    experts, layers = tuple(values["experts"]), tuple(values["layers"])
    routing = [
        TaskRouting(
            task=one["task"],
            tokens=one["tokens"],
            experts=experts,
            layers=layers,
            entropy=torch.tensor(one["entropy"]),
            load=torch.tensor(one["load"]),
            agreement=None if one["agreement"] is None else torch.tensor(one["agreement"]),
        )
        for one in values["routing"]
    ]
    questions = {
        task: TokenScalings(
            tuple(one["tokens"]), torch.tensor(one["scalings"]), torch.tensor(one["predicts_answer"])
        )
        for task, one in values["questions"].items()
    }
    return RouterLook(experts, layers, routing, questions)


def _rounded(values: torch.Tensor) -> list[Any]:
    return torch.round(values.double(), decimals=DIGITS).tolist()
