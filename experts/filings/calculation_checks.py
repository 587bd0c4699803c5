"""What a filing's calculation linkbase says about its facts: do totals add up, and what is a part of what.

The sum of the reported parts must equal the total within the rounding of all of them (XBRL 2.1, section
5.2.5.2, with the tolerance of Calculations 1.1: half a unit of the last exact digit of every fact).
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from decimal import Decimal, InvalidOperation

from .linkbases import Calculation
from .model import Fact


class CalculationChecks:
    """Checks of one filing. Tags are prefixed, such as "us-gaap:Assets"."""

    def __init__(self, calculations: Iterable[Calculation]) -> None:
        self._sums: dict[str, dict[str, list[tuple[str, Decimal]]]] = defaultdict(lambda: defaultdict(list))
        for arc in calculations:
            self._sums[arc.parent][arc.role].append((arc.child, Decimal(str(arc.weight))))

    def is_total(self, tag: str) -> bool:
        """Whether the filing says of which parts the tag is the sum."""
        return tag in self._sums

    def has_part(self, total: str, part: str) -> bool:
        """Whether ``part`` goes into ``total``, directly or through other totals."""
        reached, waiting = {total}, [total]
        while waiting:
            for parts in self._sums.get(waiting.pop(), {}).values():
                for tag, _ in parts:
                    if tag == part:
                        return True
                    if tag not in reached:
                        reached.add(tag)
                        waiting.append(tag)
        return False

    def adds_up(self, tag: str, facts: Mapping[str, Fact]) -> bool:
        """Whether the fact equals the sum of its parts in every statement that reports all of them.

        Args:
            tag: The total, which must be among the facts.
            facts: Facts of one period by tag.

        Returns:
            False only for a sum that can be checked and is wrong.
        """
        for parts in self._sums.get(tag, {}).values():
            reported = [(facts[part], weight) for part, weight in parts if part in facts]
            if len(reported) == len(parts) and not _equal(facts[tag], reported):
                return False
        return True


def number(fact: Fact) -> Decimal | None:
    """The value as a number; None for text and nil."""
    try:
        return Decimal(fact.value) if fact.value is not None else None
    except InvalidOperation:
        return None


def _equal(total: Fact, parts: list[tuple[Fact, Decimal]]) -> bool:
    values = [number(fact) for fact, _ in parts]
    stated = number(total)
    if stated is None or None in values or any(fact.unit != total.unit for fact, _ in parts):
        return True
    pairs = zip(values, parts, strict=True)
    difference = stated - sum(
        (value * weight for value, (_, weight) in pairs if value is not None), Decimal()
    )
    tolerance = _half_unit(total) + sum((abs(weight) * _half_unit(fact) for fact, weight in parts), Decimal())
    return abs(difference) <= tolerance


def _half_unit(fact: Fact) -> Decimal:
    try:
        return Decimal(5).scaleb(-int(fact.decimals or "") - 1)
    except ValueError:
        # Exact ("INF") or not stated.
        return Decimal()
