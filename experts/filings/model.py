"""Contexts and facts of an XBRL instance (XBRL 2.1), free of XML."""

import re
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation


@dataclass(frozen=True)
class Context:
    """What a fact is about: who, when, and which part of the company.

    Attributes:
        id: Name within its filing; carries no meaning.
        entity: Identifier of the registrant, usually its CIK.
        start: First day (ISO 8601) of a duration; None for an instant and for "forever".
        end: Last day of a duration, or the instant; "forever" for a fact that always holds.
        dimensions: Pairs of axis and member; empty for the company as a whole. Sorted.
    """

    id: str
    entity: str
    start: str | None
    end: str
    dimensions: tuple[tuple[str, str], ...] = ()

    @property
    def key(self) -> tuple:
        """What the context means, without its name: equal for contexts that say the same."""
        return self.entity, self.start, self.end, self.dimensions


@dataclass(frozen=True, slots=True)
class Fact:
    """One reported value.

    Attributes:
        tag: Concept with its usual prefix, such as "us-gaap:Goodwill".
        value: Text as filed, without surrounding blanks; None when reported as nil. In inline XBRL the number
            or date that the written text stands for; a text block is markup.
        unit: Such as "USD" or "USD/shares"; None for text.
        decimals: Digits right of the decimal point that are exact, such as "-6", or "INF"; None for text.
    """

    tag: str
    value: str | None
    context: Context
    unit: str | None = None
    decimals: str | None = None

    @property
    def precision(self) -> float:
        """``decimals`` as a number: infinite when exact or text, lowest for nil."""
        if self.value is None:
            return float("-inf")
        if self.decimals is None or not re.fullmatch(r"[+-]?\d+", self.decimals):
            return float("inf")
        return float(self.decimals)


@dataclass(frozen=True)
class Duplicate:
    """A fact that was reported again: same tag, unit, and what the context means.

    Source:
        XBRL International, Handling Duplicate Facts in XBRL.

    Attributes:
        kept: The most precise of those facts, the one in ``Filing.facts``.
        other: The one left out.
    """

    kept: Fact
    other: Fact

    @property
    def conflicting(self) -> bool:
        """Whether the two texts differ, be it only by rounding."""
        return self.kept.value != self.other.value

    @property
    def inconsistent(self) -> bool:
        """Whether they differ by more than the rounding that ``decimals`` of the other allows."""
        if not self.conflicting:
            return False
        if self.kept.value is None or self.other.value is None or self.kept.unit is None:
            return True
        try:
            difference = abs(Decimal(self.kept.value) - Decimal(self.other.value))
            step = Decimal(1).scaleb(-int(self.other.precision))
        except (InvalidOperation, OverflowError):
            return True
        return difference > step / 2


def separate_duplicates(reported: list[Fact]) -> tuple[tuple[Fact, ...], tuple[Duplicate, ...]]:
    """Each (tag, context, unit) once, in order of first appearance, and what was left out.

    Of several the most precise stays: where a table is exact and prose rounds, the exact value. Of equally
    precise ones the first stays.
    """
    groups: dict[tuple, list[Fact]] = {}
    for fact in reported:
        groups.setdefault((fact.tag, fact.context.key, fact.unit), []).append(fact)
    facts, duplicates = [], []
    for group in groups.values():
        kept = max(range(len(group)), key=lambda index: group[index].precision)
        facts.append(group[kept])
        duplicates += [Duplicate(group[kept], other) for index, other in enumerate(group) if index != kept]
    return tuple(facts), tuple(duplicates)
