"""Protocols: in which scope each task is asked. Adding a protocol is adding an entry."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..experts.tasks import get_task
from .results import IN_DISTRIBUTION
from .scope import WHOLE, Scope

ONE_FILING = ("xbrl_tags", "xbrl_value", "xbrl_formula", "xbrl_formula_calc")
"""Four kinds of questions about the same filings, of which one can be composed from the others."""


@dataclass(frozen=True, kw_only=True)
class EvaluationProtocol:
    """One way to ask all methods.

    Attributes:
        name: Its name in files.
        title: Its name in reports.
        explanation: One sentence for a newcomer.
        scope_of: The scope in which a task is asked, for (task, all tasks of the run).
        asked: The tasks that are asked, of all tasks of the run; none where the protocol makes no sense.
        leaves_out: Whether experts are missing, so that all that learns has to be trained anew.
        task_by_task: Whether that is once for each task.
        in_one_batch: Whether one model answers all tasks together, so that it can be told nothing.
    """

    name: str
    title: str
    explanation: str
    scope_of: Callable[[str, Sequence[str]], Scope]
    asked: Callable[[Sequence[str]], list[str]] = list
    leaves_out: bool = False
    in_one_batch: bool = False
    task_by_task: bool = False


def _without_category(task: str, tasks: Sequence[str]) -> Scope:
    category = get_task(task).category
    return Scope(without=tuple(sorted(one for one in tasks if get_task(one).category == category)))


def _if_some_are_left(tasks: Sequence[str]) -> list[str]:
    return list(tasks) if len({get_task(task).category for task in tasks}) > 1 else []


def _one_filing(tasks: Sequence[str]) -> list[str]:
    return [task for task in tasks if task in ONE_FILING] if set(ONE_FILING) <= set(tasks) else []


PROTOCOLS: dict[str, EvaluationProtocol] = {
    one.name: one
    for one in (
        EvaluationProtocol(
            name=IN_DISTRIBUTION,
            title="In distribution",
            explanation="Every task has an expert, and its training questions were seen by whatever learns.",
            scope_of=lambda task, tasks: WHOLE,
        ),
        EvaluationProtocol(
            name="leave_one_task_out",
            title="One task left out",
            explanation="Each task is asked of methods from which its expert and all its training examples "
            "were left out.",
            scope_of=lambda task, tasks: Scope(without=(task,)),
            leaves_out=True,
            task_by_task=True,
        ),
        EvaluationProtocol(
            name="leave_one_category_out",
            title="One category left out",
            explanation="Each task is asked of methods from which all experts and examples of its category "
            "were left out.",
            scope_of=_without_category,
            asked=_if_some_are_left,
            leaves_out=True,
        ),
        EvaluationProtocol(
            name="composition",
            title="Three of four kinds of filing questions",
            explanation="Of four kinds of questions about filings (tag, value, formula, calculation) three "
            "are trained, with all other tasks, and the fourth is asked.",
            scope_of=lambda task, tasks: Scope(without=(task,)),
            asked=_one_filing,
            leaves_out=True,
            task_by_task=True,
        ),
        EvaluationProtocol(
            name="reworded",
            title="Instructions reworded",
            explanation="The same questions with instructions in other words than in training.",
            scope_of=lambda task, tasks: Scope(asking="reworded"),
        ),
        EvaluationProtocol(
            name="other_authors",
            title="Instructions by other authors",
            explanation="The same questions with instructions as four other authors word them, who had seen "
            "no other wording: an analyst, a polite user, a data engineer, a chat.",
            scope_of=lambda task, tasks: Scope(asking="other_authors"),
        ),
        EvaluationProtocol(
            name="label_order",
            title="Options in reverse order",
            explanation="The same questions with the answers to choose from listed backwards; tasks without "
            "such a list are left out.",
            scope_of=lambda task, tasks: Scope(asking="label_order"),
            asked=lambda tasks: [task for task in tasks if "{" in get_task(task).prompt],
        ),
        EvaluationProtocol(
            name="mixed_batches",
            title="Tasks mixed in each batch",
            explanation="The same questions, answered in batches in which all tasks stand side by side.",
            scope_of=lambda task, tasks: Scope(asking="mixed_batches"),
            in_one_batch=True,
        ),
    )
}
