"""What a method is: how its model is made, which trained parts it needs, what it is told."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import nn

from ...experts.base_model import Base
from ..layout import RunLayout

XLORA = "xlora"
"""The method that all others are compared with."""
Family = Literal["reference", "multitask", "merge", "selector", "router"]


@dataclass(frozen=True)
class Call:
    """What a method's model is opened for.

    Attributes:
        run: The run, in the scope that is asked.
        base: The loaded base, which is left as it was.
        seed: Router seed; None for methods without one.
        task: The task that is asked; only methods that are told the task may look at it.
        budget: The run's `Budget`, whose file imports the table of methods.
    """

    run: RunLayout
    base: Base
    seed: int | None
    task: str
    budget: Any


Opener = Callable[[Call], AbstractContextManager[nn.Module]]


@dataclass(frozen=True, kw_only=True)
class Method:
    """One way to answer all tasks.

    Attributes:
        name: Its name in files.
        title: Its name in reports.
        explanation: One sentence for a newcomer.
        colour: Its colour in every plot.
        family: What kind of method it is.
        open: Makes its model; None if its answers are taken from other methods.
        answers_of: For such a method, whose answers stand for it, by task.
        rule: For a method that chooses one expert for each question, the name of the rule.
        learns_wordings: Whether the rule is fitted on instructions in several wordings, ten authors' too.
        parts: Names of the trained parts that it needs; `{seed}` stands for the router seed, `{task}` for the
            task that is asked.
        seeds: Router seeds it is run with, (None,) if it has no router.
        told: What it is told about a question beside its text.
        shots: Solved examples of the task before each question.
    """

    name: str
    title: str
    explanation: str
    colour: str
    family: Family = "reference"
    open: Opener | None = None
    answers_of: Callable[[str], str] | None = None
    rule: str | None = None
    learns_wordings: bool = False
    parts: tuple[str, ...] = ()
    seeds: tuple[int | None, ...] = (None,)
    told: Literal["nothing", "task", "category"] = "nothing"
    shots: int = 0

    @property
    def has_seeds(self) -> bool:
        """Whether it is run once for each router seed."""
        return self.seeds != (None,)

    @property
    def is_one_model(self) -> bool:
        """Whether one and the same model answers all tasks."""
        by_task = self.told != "nothing" or any("{task}" in part for part in self.parts)
        return self.open is not None and not by_task

    def needs(self, seed: int | None, task: str) -> tuple[str, ...]:
        """The trained parts behind its answers to one task."""
        return tuple(part.format(seed=seed, task=task) for part in self.parts)


def experts_of(run: RunLayout, tasks: tuple[str, ...]) -> dict[str, Path]:
    """Folder of each expert, by task."""
    return {task: run.expert(task) for task in tasks}
