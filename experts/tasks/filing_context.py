"""How facts stand in a prompt, and which of them fit: the asked ones always, distractors as room allows."""

import random
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Literal

from ..filings.model import Fact
from ..filings.ratios import RATIOS, Ratio
from .filing_sheets import PREFIX
from .task import Example
from .xbrl_questions import xml_lines

Style = Literal["plain", "full", "finlora"]
"""``plain``: tag and value, of one period. ``full``: also period, unit and decimals, and the asked item in
other periods among the distractors. ``finlora``: a whole context as FinLoRA writes it."""

MAX_FACTS = 12
MIN_FACTS = 4

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z][a-z]*")


@dataclass(frozen=True)
class TokenBudget:
    """How long a prompt may be.

    Attributes:
        limit: Tokens of the whole prompt at most.
        count: Number of tokens of a text, such as ``lambda text: len(tokenizer(text).input_ids)``.
    """

    limit: int
    count: Callable[[str], int]


@dataclass(frozen=True)
class QuestionSettings:
    """How a filing is asked about.

    Attributes:
        style: How facts stand in the prompt.
        ratios: What formulas are about; ``ALL_RATIOS`` has all there are.
        budget: Longest prompt; None shows 4 to 12 facts, or everything in the style ``finlora``.
        instance: The filing's XBRL instance, which the style ``finlora`` quotes.
    """

    style: Style = "plain"
    ratios: tuple[Ratio, ...] = RATIOS
    budget: TokenBudget | None = None
    instance: Path | None = None


def period_text(start: str | None, end: str) -> str:
    """Such as "from 2022-10-01 to 2023-09-30", or "at 2023-09-30"."""
    return f"at {end}" if start is None else f"from {start} to {end}"


def written(facts: Sequence[Fact], style: Style) -> str:
    """Facts as they stand in a prompt, in the order given (``full``: period by period)."""
    return described_facts(facts) if style == "full" else xml_lines(_pairs(facts))


def described_facts(facts: Sequence[Fact]) -> str:
    """Facts with period, unit and decimals; each period names its commonest unit and decimals once.

    Example:
        ``From 2023-01-01 to 2023-12-31, USD, decimals -6:``
        ``<us-gaap:NetIncomeLoss>96995000000</>``
        ``<us-gaap:EarningsPerShareBasic unit=USD/shares decimals=2>6.16</>``
    """
    lines = []
    by_period = sorted(facts, key=lambda fact: (fact.context.end, fact.context.start or fact.context.end))
    for _, group in groupby(by_period, key=lambda fact: (fact.context.start, fact.context.end)):
        period = list(group)
        unit, decimals = Counter((fact.unit, fact.decimals) for fact in period).most_common(1)[0][0]
        when = period_text(period[0].context.start, period[0].context.end)
        lines.append(f"{when.capitalize()}, {unit}, decimals {decimals}:")
        for fact in period:
            own = "" if fact.unit == unit else f" unit={fact.unit}"
            own += "" if fact.decimals == decimals else f" decimals={fact.decimals}"
            lines.append(f"<{fact.tag}{own}>{fact.value}</>")
    return "\n".join(lines)


@dataclass(frozen=True)
class Room:
    """How much a prompt shows, and which facts are drawn.

    Without a budget 4 to 12 facts are shown in all. With one the whole prompt keeps it: distractors are taken
    one by one as long as they fit, and never instead of an asked fact.

    Attributes:
        style: ``plain`` or ``full``.
        chance: Draws the distractors.
        budget: None for a fixed number of facts.
    """

    style: Style
    chance: random.Random
    budget: TokenBudget | None = None

    def choose(
        self,
        asked: Sequence[Fact],
        pool: Sequence[Fact],
        ask: Callable[[str], Example],
        first: Sequence[Fact] = (),
    ) -> list[Fact] | None:
        """The facts to show, in the order in which they are shown.

        Args:
            asked: Facts that the answer needs.
            pool: Facts that may be shown, the asked ones themselves among them, in order.
            ask: Makes the prompt of written facts, to count its tokens.
            first: Distractors that come before all others, because they are easily confused.

        Returns:
            None if the asked facts alone do not fit.
        """
        # By identity: hashing every fact for every question would take most of the time.
        needed = set(map(id, asked))
        others = [fact for fact in pool if id(fact) not in needed]
        order = [*pool, *first]
        if self.budget is None:
            room = self.chance.randint(MIN_FACTS, MAX_FACTS) - len(asked)
            chosen = list(first)[: max(room, 0)]
            chosen += self.chance.sample(others, max(min(len(others), room - len(chosen)), 0))
            return _in_order(order, needed, chosen)
        return self._within(self.budget, needed, [*first, *self._nearest_first(asked, others)], order, ask)

    def _within(
        self,
        budget: TokenBudget,
        needed: set[int],
        others: Sequence[Fact],
        order: Sequence[Fact],
        ask: Callable[[str], Example],
    ) -> list[Fact] | None:
        def tokens(facts: Sequence[Fact]) -> int:
            return budget.count(ask(written(facts, self.style)).context)

        chosen: list[Fact] = []
        room = budget.limit - tokens(_in_order(order, needed, chosen))
        if room < 0:
            return None
        for fact in others:
            room -= budget.count("\n" + written([fact], self.style).split("\n")[-1])
            if room < 0:
                break
            chosen.append(fact)
        # Headings of periods come on top, and tokens of lines need not add up to those of the text.
        while chosen and tokens(_in_order(order, needed, chosen)) > budget.limit:
            chosen.pop()
        return _in_order(order, needed, chosen)

    def _nearest_first(self, asked: Sequence[Fact], others: Sequence[Fact]) -> list[Fact]:
        """Facts whose tags share words with an asked one, in turn with any facts."""
        words = {word for fact in asked for word in _words(fact)}
        drawn = self.chance.sample(others, len(others))
        near = sorted(drawn, key=lambda fact: -len(words.intersection(_words(fact))))
        return list(dict.fromkeys(fact for pair in zip(near, drawn, strict=True) for fact in pair))


def _in_order(order: Sequence[Fact], needed: set[int], chosen: Sequence[Fact]) -> list[Fact]:
    shown = needed.union(map(id, chosen))
    return [fact for fact in order if id(fact) in shown]


def _words(fact: Fact) -> list[str]:
    return _WORD.findall(fact.tag.removeprefix(PREFIX))


def _pairs(facts: Sequence[Fact]) -> list[tuple[str, str]]:
    return [(fact.tag.removeprefix(PREFIX), fact.value or "") for fact in facts]
