"""The facts of a filing that questions are about, period by period."""

from dataclasses import dataclass

from ..filings.filing import Filing
from ..filings.model import Fact

PREFIX = "us-gaap:"


@dataclass(frozen=True)
class Sheet:
    """Numeric us-gaap facts of the company as a whole (no dimensions) in one period.

    Attributes:
        start: First day (ISO 8601); None for an instant.
        end: Last day, or the instant.
        facts: By tag without prefix, in document order. Each has one value only.
        conflicting: Tags with different values in this period, in two units or beyond rounding; nothing is
            asked about them and they are never shown.
    """

    start: str | None
    end: str
    facts: dict[str, Fact]
    conflicting: frozenset[str] = frozenset()


def single_contexts(filing: Filing) -> list[Sheet]:
    """One sheet an undimensioned period, in document order."""
    sheets: dict[tuple[str | None, str], dict[str, Fact]] = {}
    conflicting: dict[tuple[str | None, str], set[str]] = {}
    for fact in filing.facts:
        if fact.unit is None or not fact.value or fact.context.dimensions or not fact.tag.startswith(PREFIX):
            continue
        period, tag = (fact.context.start, fact.context.end), fact.tag.removeprefix(PREFIX)
        first = sheets.setdefault(period, {}).setdefault(tag, fact)
        if (first.value, first.unit) != (fact.value, fact.unit):
            conflicting.setdefault(period, set()).add(tag)
    for duplicate in filing.duplicates:
        context = duplicate.kept.context
        if duplicate.inconsistent and not context.dimensions:
            tag = duplicate.kept.tag.removeprefix(PREFIX)
            conflicting.setdefault((context.start, context.end), set()).add(tag)
    return [
        _without(Sheet(*period, facts), conflicting.get(period, set())) for period, facts in sheets.items()
    ]


def reporting_periods(filing: Filing) -> list[Sheet]:
    """One sheet an undimensioned duration, joined with the instant at its end."""
    sheets = single_contexts(filing)
    instants = {sheet.end: sheet for sheet in sheets if sheet.start is None}
    joined = []
    for sheet in sheets:
        if sheet.start is not None:
            end = instants.get(sheet.end, Sheet(None, sheet.end, {}))
            facts = sheet.facts | end.facts
            joined.append(_without(Sheet(sheet.start, sheet.end, facts), sheet.conflicting | end.conflicting))
    return joined


def _without(sheet: Sheet, conflicting: set[str] | frozenset[str]) -> Sheet:
    facts = {tag: fact for tag, fact in sheet.facts.items() if tag not in conflicting}
    return Sheet(sheet.start, sheet.end, facts, frozenset(conflicting))
