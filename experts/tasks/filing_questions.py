"""Turns a filing into examples of the four XBRL extraction tasks.

Every prompt shows at most ``MAX_FACTS`` numeric us-gaap facts of the company as a whole (no dimensions): for
tags and values those of one context, for formulas those of one duration and of the instant at its end, since
return on assets needs both. The asked facts are among them; the others are distractors, drawn by the seed, in
document order.
"""

import random
from collections import defaultdict
from collections.abc import Callable, Iterator

from ..errors import FinLoraError
from ..filings.filing import Filing
from ..filings.ratios import RATIOS, Ratio
from .task import Example
from .xbrl_questions import (
    Fact,
    formula_calc_question,
    formula_question,
    tag_question,
    tags_in,
    value_question,
)

MAX_FACTS = 12
MIN_FACTS = 4
_MAX_LABEL_CHARACTERS = 120
_PREFIX = "us-gaap:"

Sheet = dict[str, str]
"""Value by us-gaap tag (without prefix) in document order, of one period of one company."""


def filing_examples(task: str, filing: Filing, *, seed: int = 0, variants: int = 1) -> list[Example]:
    """All questions of ``task`` that the filing can answer, each ``variants`` times with other distractors.

    The group of an example is the company and what is asked, since the same item of
    two periods is nearly the same question.

    Raises:
        FinLoraError: ``task`` is not one that is asked about filings.
    """
    if task not in FILING_TASKS:
        raise FinLoraError(
            f"Task {task!r} is not asked about filings; allowed are {', '.join(FILING_TASKS)}."
        )
    examples: dict[str, Example] = {}
    for variant in range(variants):
        chance = random.Random(f"{seed} {variant} {task} {filing.company}")
        for example in FILING_TASKS[task](filing, chance):
            examples.setdefault(example.context, example)
    return list(examples.values())


def single_contexts(filing: Filing) -> list[Sheet]:
    """The facts of each undimensioned context, without facts whose text is not a plain number."""
    return [sheet for _, sheet in _sheets(filing)]


def reporting_periods(filing: Filing) -> list[Sheet]:
    """The facts of each undimensioned duration joined with those of the instant at its end."""
    sheets = _sheets(filing)
    instants = {end: sheet for (start, end), sheet in sheets if start is None}
    return [sheet | instants.get(end, {}) for (start, end), sheet in sheets if start is not None]


def _sheets(filing: Filing) -> list[tuple[tuple[str | None, str], Sheet]]:
    sheets: dict[tuple[str | None, str], Sheet] = defaultdict(dict)
    for fact in filing.facts:
        plain = fact.unit is not None and fact.value and not fact.context.dimensions
        if plain and fact.tag.startswith(_PREFIX):
            sheet = sheets[fact.context.start, fact.context.end]
            sheet.setdefault(fact.tag.removeprefix(_PREFIX), fact.value or "")
    return list(sheets.items())


def _tag_questions(filing: Filing, chance: random.Random) -> Iterator[Example]:
    for tag, label, facts in _labelled_items(filing, chance):
        yield tag_question(facts, label, tag, filing.company, group=f"{filing.company}: {tag}")


def _value_questions(filing: Filing, chance: random.Random) -> Iterator[Example]:
    for tag, label, facts in _labelled_items(filing, chance):
        asked_name = label if chance.random() < 0.5 else _PREFIX + tag
        value = dict(facts)[tag]
        yield value_question(facts, asked_name, value, filing.company, group=f"{filing.company}: {tag}")


def _labelled_items(filing: Filing, chance: random.Random) -> Iterator[tuple[str, str, list[Fact]]]:
    labels = {
        tag.removeprefix(_PREFIX): label for tag, label in filing.labels.items() if tag.startswith(_PREFIX)
    }
    for sheet in single_contexts(filing):
        if len(sheet) < MIN_FACTS:
            continue
        for tag in sheet:
            label = labels.get(tag, "")
            if 0 < len(label) <= _MAX_LABEL_CHARACTERS:
                others = [other for other in sheet if other != tag and labels.get(other) != label]
                yield tag, label, _shown(sheet, [tag], others, chance)


def _ratio_questions(ask: Callable[..., Example]) -> Callable[[Filing, random.Random], Iterator[Example]]:
    def questions(filing: Filing, chance: random.Random) -> Iterator[Example]:
        for sheet in reporting_periods(filing):
            for ratio in RATIOS:
                formula = ratio.with_tags(sheet)
                if formula is not None:
                    facts = _ratio_facts(sheet, ratio, formula, chance)
                    group = f"{filing.company}: {ratio.name}"
                    yield ask(facts, ratio.name, formula, filing.company, group=group)

    return questions


def _ratio_facts(sheet: Sheet, ratio: Ratio, formula: str, chance: random.Random) -> list[Fact]:
    competing = ratio.competing_tags
    others = [tag for tag in sheet if tag not in competing]
    return _shown(sheet, tags_in(formula), others, chance)


def _shown(sheet: Sheet, asked: list[str], others: list[str], chance: random.Random) -> list[Fact]:
    room = min(len(others), chance.randint(MIN_FACTS, MAX_FACTS) - len(asked))
    shown = {*asked, *chance.sample(others, max(room, 0))}
    return [(tag, value) for tag, value in sheet.items() if tag in shown]


FILING_TASKS: dict[str, Callable[[Filing, random.Random], Iterator[Example]]] = {
    "xbrl_tags": _tag_questions,
    "xbrl_value": _value_questions,
    "xbrl_formula": _ratio_questions(formula_question),
    "xbrl_formula_calc": _ratio_questions(formula_calc_question),
}
