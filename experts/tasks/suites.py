"""Suites: which tasks are asked together, with which examples. Adding a suite is adding an entry."""

from collections.abc import Callable
from dataclasses import dataclass

from ..errors import FinLoraError
from .embedded import build_examples
from .finlora_suites import FINLORA_TASKS, finlora_15_examples, finlora_fixed_examples
from .real import REAL_TASKS, left_out, real_examples
from .task import Example

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Suite:
    """A set of tasks with examples.

    Attributes:
        name: Key of the suite in commands.
        title: What a reader sees in a report.
        tasks: Names of the tasks, in the order of a report.
        build: Makes the examples of (task, split); the same ones at every call.
    """

    name: str
    title: str
    tasks: tuple[str, ...]
    build: Callable[[str, str], list[Example]]

    def examples(self, task: str, split: str) -> list[Example]:
        """Examples of one task in one of the splits train, validation and test.

        Raises:
            FinLoraError: The suite has no such task, there is no such split, or data is missing.
        """
        if task not in self.tasks:
            known = ", ".join(self.tasks)
            raise FinLoraError(f"The {self.name} suite has no task {task!r}; its tasks are {known}.")
        if split not in SPLITS:
            raise FinLoraError(f"There is no split {split!r}; allowed are {', '.join(SPLITS)}.")
        return self.build(task, split)


def get_suite(name: str) -> Suite:
    """The suite of that name.

    Raises:
        FinLoraError: There is none.
    """
    if name not in SUITES:
        raise FinLoraError(f"There is no suite {name!r}; allowed are {', '.join(SUITES)}.")
    return SUITES[name]


def some_examples(task: str, count: int) -> tuple[str, list[Example]]:
    """A few test questions of a task from the first suite that has some here, and where they come from."""
    for name in ("real", "embedded"):
        suite = SUITES[name]
        if task not in suite.tasks:
            continue
        try:
            examples = suite.examples(task, "test")[:count]
        except FinLoraError:
            continue
        too_long = left_out(task) if name == "real" else 0
        counted = f", which leaves out {too_long:,} questions whose prompts are too long" if too_long else ""
        return f"the {name} suite{counted}", examples
    return "none here; build some with `finlora data build`", []


SUITES: dict[str, Suite] = {
    "embedded": Suite(
        name="embedded",
        title="Invented companies",
        tasks=(
            "xbrl_tags",
            "xbrl_value",
            "xbrl_formula",
            "xbrl_formula_calc",
            "finer",
            "xbrl_term",
            "sentiment",
            "headline",
        ),
        build=build_examples,
    ),
    "real": Suite(name="real", title="Published data and SEC filings", tasks=REAL_TASKS, build=real_examples),
    "finlora-15": Suite(
        name="finlora-15",
        title="FinLoRA's public tasks as published",
        tasks=FINLORA_TASKS,
        build=finlora_15_examples,
    ),
    "finlora-fixed": Suite(
        name="finlora-fixed",
        title="FinLoRA's public tasks, corrected",
        tasks=FINLORA_TASKS,
        build=finlora_fixed_examples,
    ),
}
