"""Asks about the facts of one filing in the styles ``plain`` and ``full``, and counts what it does not ask.

A prompt shows numeric us-gaap facts of the company as a whole (no dimensions): for tags and values those of
one period (``full`` adds the asked item in other periods), for formulas those of one duration and of the
instant at its end, since return on assets needs both. The asked facts are among them; the others are
distractors.
"""

import random
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial

from ..filings.calculation_checks import CalculationChecks
from ..filings.filing import Filing
from ..filings.model import Fact
from ..filings.ratios import LINE_ITEMS, PARTS, Ratio
from .filing_answers import Asked
from .filing_context import MIN_FACTS, QuestionSettings, Room, period_text, written
from .filing_sheets import PREFIX, Sheet, reporting_periods, single_contexts
from .task import Example
from .xbrl_questions import (
    formula_calc_question,
    formula_question,
    substitute_values,
    tag_question,
    tags_in,
    value_question,
)

MAX_LABEL_CHARACTERS = 120
TOO_LONG = "longer than the token budget"


class FilingAsker:
    """The candidates of each task in the order of the filing, with their prompts."""

    def __init__(
        self, filing: Filing, settings: QuestionSettings, chance: random.Random, dropped: Counter[str]
    ) -> None:
        self.filing = filing
        self.settings = settings
        self.chance = chance
        self.dropped = dropped
        self.room = Room(settings.style, chance, settings.budget)
        self.checks = CalculationChecks(filing.calculations)
        self.sheets = single_contexts(filing)

    def tags(self) -> Iterator[Asked]:
        """A question for the tag of each labelled fact."""
        for sheet, tag, label in self._labelled_items():
            ask = self._ask(tag_question, sheet, tag, label=label, tag=tag)
            facts = self._item_facts(sheet, tag, ask)
            if facts is not None:
                yield Asked(ask(self._written(facts)), label, self._when(sheet))

    def values(self) -> Iterator[Asked]:
        """A question for the value of each labelled fact, by label or by tag."""
        for sheet, tag, label in self._labelled_items():
            names = (label, PREFIX + tag)
            ask = self._ask(value_question, sheet, tag, value=sheet.facts[tag].value)
            facts = self._item_facts(sheet, tag, partial(ask, asked_name=max(names, key=len)))
            if facts is not None:
                name = names[0] if self.chance.random() < 0.5 else names[1]
                yield Asked(ask(self._written(facts), asked_name=name), name, self._when(sheet))

    def formulas(self) -> Iterator[Asked]:
        """A question for the formula of each ratio that a period reports."""
        for sheet, ratio, formula in self._formulas():
            ask = self._ask(formula_question, sheet, ratio.name, ratio_name=ratio.name, formula=formula)
            yield from self._ratio(sheet, ratio, formula, ask)

    def calculations(self) -> Iterator[Asked]:
        """A question for the calculation of each ratio that a period reports."""
        for sheet, ratio, formula in self._formulas():
            pairs = [(tag, sheet.facts[tag].value or "") for tag in tags_in(formula)]
            content = {"ratio_name": ratio.name, "calculation": substitute_values(pairs, formula)}
            ask = self._ask(formula_calc_question, sheet, ratio.name, **content)
            yield from self._ratio(sheet, ratio, formula, ask)

    def _ask(self, question: Callable[..., Example], sheet: Sheet, item: str, **content: object) -> partial:
        company, when = self.filing.company, self._when(sheet)
        group = f"{company}: {item}"
        return partial(question, company=company, when=when and f" {when}", group=group, **content)

    def _when(self, sheet: Sheet) -> str:
        return period_text(sheet.start, sheet.end) if self.settings.style == "full" else ""

    def _written(self, facts: list[Fact]) -> str:
        return written(facts, self.settings.style)

    def _labelled_items(self) -> Iterator[tuple[Sheet, str, str]]:
        """Sheet, tag and label of every fact that a label can name without doubt."""
        for sheet in self.sheets:
            labels = Counter(self._label(tag) for tag in (*sheet.facts, *sheet.conflicting))
            self._drop("several values in the period", len(sheet.conflicting))
            if len(sheet.facts) < MIN_FACTS:
                self._drop(f"fewer than {MIN_FACTS} facts in the period", len(sheet.facts))
                continue
            for tag in sheet.facts:
                label = self._label(tag)
                if not label:
                    self._drop("no label in the linkbase")
                elif len(label) > MAX_LABEL_CHARACTERS:
                    self._drop(f"label longer than {MAX_LABEL_CHARACTERS} characters")
                elif labels[label] > 1:
                    self._drop("label shared with another tag")
                else:
                    yield sheet, tag, label

    def _item_facts(self, sheet: Sheet, tag: str, ask: Callable[[str], Example]) -> list[Fact] | None:
        first: list[Fact] = []
        if self.settings.style == "full":
            elsewhere = [other.facts[tag] for other in self.sheets if tag in other.facts]
            elsewhere.remove(sheet.facts[tag])
            first = self.chance.sample(elsewhere, min(2, len(elsewhere)))
        return self._fitting([sheet.facts[tag]], list(sheet.facts.values()), ask, first)

    def _ratio(
        self, sheet: Sheet, ratio: Ratio, formula: str, ask: Callable[[str], Example]
    ) -> Iterator[Asked]:
        tags = dict.fromkeys(tags_in(formula))
        others = ratio.competing_tags.difference(tags)
        pool = [fact for tag, fact in sheet.facts.items() if tag not in others]
        facts = self._fitting([sheet.facts[tag] for tag in tags], pool, ask, [])
        if facts is not None:
            yield Asked(ask(self._written(facts)), ratio.name, self._when(sheet), formula)

    def _fitting(
        self, asked: list[Fact], pool: list[Fact], ask: Callable[[str], Example], first: list[Fact]
    ) -> list[Fact] | None:
        facts = self.room.choose(asked, pool, ask, first)
        if facts is None:
            self._drop(TOO_LONG)
        return facts

    def _formulas(self) -> Iterator[tuple[Sheet, Ratio, str]]:
        """Sheet, ratio and formula over tags, where the calculation linkbase does not speak against it."""
        for sheet in reporting_periods(self.filing):
            for ratio in self.settings.ratios:
                formula = ratio.with_tags(sheet.facts)
                reason = self._reason_against(sheet, ratio, formula)
                if reason is not None:
                    self._drop(reason)
                elif formula is not None:
                    yield sheet, ratio, formula

    def _reason_against(self, sheet: Sheet, ratio: Ratio, formula: str | None) -> str | None:
        if ratio.with_tags({*sheet.facts, *sheet.conflicting}) != formula:
            return "several values in the period"
        tags = tags_in(formula or "")
        facts = {fact.tag: fact for fact in sheet.facts.values()}
        if not all(self.checks.adds_up(PREFIX + tag, facts) for tag in tags):
            return "a total is not the sum of its parts"
        if not all(map(self._is_part, ratio.line_items, tags)):
            return "an item is not part of its total in the calculation linkbase"
        return None

    def _is_part(self, item: str, tag: str) -> bool:
        totals = [PREFIX + total for total in LINE_ITEMS[PARTS[item]]] if item in PARTS else []
        known = [total for total in totals if self.checks.is_total(total)]
        return not known or any(self.checks.has_part(total, PREFIX + tag) for total in known)

    def _label(self, tag: str) -> str:
        return self.filing.labels.get(PREFIX + tag, "")

    def _drop(self, reason: str, times: int = 1) -> None:
        if times:
            self.dropped[reason] += times


FILING_TASKS: dict[str, Callable[[FilingAsker], Iterator[Asked]]] = {
    "xbrl_tags": FilingAsker.tags,
    "xbrl_value": FilingAsker.values,
    "xbrl_formula": FilingAsker.formulas,
    "xbrl_formula_calc": FilingAsker.calculations,
}
