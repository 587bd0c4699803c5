"""Turns a filing into examples of the four XBRL extraction tasks.

Every answer is checked when it is built, and what has no single right answer is dropped and counted.
"""

import random
from collections import Counter
from collections.abc import Iterator

from ..errors import FinLoraError
from ..filings.filing import Filing
from .built import Built
from .filing_answers import Asked, answer_fault
from .filing_asker import FILING_TASKS, TOO_LONG, FilingAsker
from .filing_context import QuestionSettings
from .finlora_questions import FinLoRAContexts
from .task import Example

_DEFAULT = QuestionSettings()


def filing_examples(
    task: str, filing: Filing, *, seed: int = 0, variants: int = 1, settings: QuestionSettings = _DEFAULT
) -> list[Example]:
    """The questions of `build_questions`, without its counts."""
    return build_questions(task, filing, seed=seed, variants=variants, settings=settings).examples


def build_questions(
    task: str, filing: Filing, *, seed: int = 0, variants: int = 1, settings: QuestionSettings = _DEFAULT
) -> Built:
    """All questions of ``task`` that the filing can answer, each ``variants`` times with other distractors.

    Candidates are the numeric us-gaap facts of each period of the company as a whole, and the ratios of which
    a period reports all items. The group of an example is the company and what is asked, since the same item
    of two periods is nearly the same question.

    Raises:
        FinLoraError: ``task`` is not one that is asked about filings, or the style needs an instance.
    """
    if task not in FILING_TASKS:
        raise FinLoraError(
            f"Task {task!r} is not asked about filings; allowed are {', '.join(FILING_TASKS)}."
        )
    examples: dict[str, Example] = {}
    first_dropped: Counter[str] | None = None
    for variant in range(variants):
        dropped: Counter[str] = Counter()
        chance = random.Random(f"{seed} {variant} {task} {filing.company}")
        for asked in _asked(task, filing, settings, chance, dropped):
            fault = answer_fault(task, asked, filing)
            if fault is not None:
                dropped[fault] += 1
            elif asked.example.context in examples:
                dropped["same prompt as another question"] += 1
            else:
                examples[asked.example.context] = asked.example
        # Further variants drop the same candidates again.
        first_dropped = dropped if first_dropped is None else first_dropped
    return Built(list(examples.values()), first_dropped or Counter())


def _asked(
    task: str, filing: Filing, settings: QuestionSettings, chance: random.Random, dropped: Counter[str]
) -> Iterator[Asked]:
    if settings.style != "finlora":
        return FILING_TASKS[task](FilingAsker(filing, settings, chance, dropped))
    if settings.instance is None:
        raise FinLoraError('The style "finlora" quotes the XBRL instance; name its file in the settings.')
    contexts = FinLoRAContexts(task, filing, settings.instance, dropped)
    asked = contexts.ratios(settings.ratios) if task.startswith("xbrl_formula") else contexts.items()
    return _fitting(asked, settings, dropped)


def _fitting(
    asked_of_all: Iterator[Asked], settings: QuestionSettings, dropped: Counter[str]
) -> Iterator[Asked]:
    budget = settings.budget
    for asked in asked_of_all:
        if budget is not None and budget.count(asked.example.context) > budget.limit:
            dropped[TOO_LONG] += 1
        else:
            yield asked
