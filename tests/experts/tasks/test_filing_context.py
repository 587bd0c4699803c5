"""Which facts a prompt shows: within a token budget, never without the asked ones, described in full."""

import random

import pytest

from finlora.experts.filings.model import Context, Fact
from finlora.experts.tasks import Example
from finlora.experts.tasks.filing_answers import shown_facts
from finlora.experts.tasks.filing_context import Room, TokenBudget, described_facts, written

YEAR = Context("year", "1", "2023-01-01", "2023-12-31")
END = Context("end", "1", None, "2023-12-31")


def money(
    tag: str, value: str = "5", context: Context = END, decimals: str = "-6", unit: str = "USD"
) -> Fact:
    return Fact(f"us-gaap:{tag}", value, context, unit, decimals)


def ask(shown: str) -> Example:
    return Example(f"XML File: {shown}\nQuestion?", "5")


def words(text: str) -> int:
    """A stand-in for a tokenizer: one token a character."""
    return len(text)


ASKED = money("LongTermDebtCurrent")
POOL = [*(money(f"Filler{number}") for number in range(30)), ASKED, money("LongTermDebtNoncurrent")]


def test_the_full_style_states_period_unit_and_decimals_once() -> None:
    facts = [
        money("Revenues", "7", YEAR),
        money("EarningsPerShareBasic", "0.5", YEAR, decimals="2", unit="USD/shares"),
        money("NetIncomeLoss", "3", YEAR),
        money("Goodwill", "1", decimals="-3"),
    ]
    assert described_facts(facts) == (
        "From 2023-01-01 to 2023-12-31, USD, decimals -6:\n"
        "<us-gaap:Revenues>7</>\n"
        "<us-gaap:EarningsPerShareBasic unit=USD/shares decimals=2>0.5</>\n"
        "<us-gaap:NetIncomeLoss>3</>\n"
        "At 2023-12-31, USD, decimals -3:\n"
        "<us-gaap:Goodwill>1</>"
    )
    assert shown_facts(f"XML File: {described_facts(facts)}\nQuestion?") == [
        ("Revenues", "7", "from 2023-01-01 to 2023-12-31"),
        ("EarningsPerShareBasic", "0.5", "from 2023-01-01 to 2023-12-31"),
        ("NetIncomeLoss", "3", "from 2023-01-01 to 2023-12-31"),
        ("Goodwill", "1", "at 2023-12-31"),
    ]


@pytest.mark.parametrize("style", ["plain", "full"])
@pytest.mark.parametrize("limit", [110, 150, 300, 700, 100_000])
def test_a_budget_is_used_and_kept(style, limit: int) -> None:
    """The asked fact is always shown; enough room shows all, in the order of the pool; little is wasted."""
    room = Room(style, random.Random(0), TokenBudget(limit, words))
    facts = room.choose([ASKED], POOL, ask)
    assert facts is not None
    assert ASKED in facts
    assert facts == [fact for fact in POOL if fact in facts]
    length = words(ask(written(facts, style)).context)
    assert length <= limit
    # One more fact has at most this many characters.
    assert len(facts) == len(POOL) or length > limit - 2 * len(described_facts([POOL[-1]]))


def test_asked_facts_that_do_not_fit_are_never_cut() -> None:
    assert Room("plain", random.Random(0), TokenBudget(50, words)).choose([ASKED], POOL, ask) is None


def test_confusing_facts_come_first() -> None:
    """With room for few, the fact of a similar name is shown; given ones come before it."""
    other_year = money("LongTermDebtCurrent", "4", Context("old", "1", None, "2022-12-31"))
    for seed in range(5):
        room = Room("full", random.Random(seed), TokenBudget(260, words))
        facts = room.choose([ASKED], POOL, ask, [other_year])
        assert facts is not None
        assert {ASKED, POOL[-1], other_year} <= set(facts)


def test_texts_whose_tokens_do_not_add_up_still_fit() -> None:
    """A tokenizer that needs more tokens for the whole than for its lines: distractors go until it fits."""
    budget = TokenBudget(30, lambda text: max(1, len(text) ** 2 // 2000))
    facts = Room("plain", random.Random(0), budget).choose([ASKED], POOL, ask)
    assert facts is not None
    assert ASKED in facts
    assert budget.count(ask(written(facts, "plain")).context) <= 30
