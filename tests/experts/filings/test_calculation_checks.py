"""Totals and parts by hand-written calculation arcs."""

import pytest

from finlora.experts.filings.calculation_checks import CalculationChecks, number
from finlora.experts.filings.linkbases import Calculation
from finlora.experts.filings.model import Context, Fact

END = Context("end", "1", None, "2023-12-31")
CHECKS = CalculationChecks(
    [
        Calculation("balance", "Assets", "Cash", 1.0),
        Calculation("balance", "Assets", "Allowance", -1.0),
        Calculation("note", "Assets", "Absent", 1.0),
        Calculation("note", "Cash", "Deposits", 1.0),
        Calculation("note", "Deposits", "Cash", 1.0),
    ]
)


def facts(assets: str, cash: str, allowance: str, *, decimals: str | None = "INF", unit: str = "USD"):
    values = {"Assets": assets, "Cash": cash, "Allowance": allowance}
    return {tag: Fact(tag, value, END, unit, decimals) for tag, value in values.items()}


@pytest.mark.parametrize(
    ("assets", "decimals", "adds_up"),
    [("7", "INF", True), ("8", "INF", False), ("8", "0", True), ("9", "0", False), ("12", "-1", True)],
)
def test_totals_are_checked_within_the_rounding_of_all_facts(
    assets: str, decimals: str, adds_up: bool
) -> None:
    """10 - 3 is 7; three facts rounded to whole units may miss by 1.5, rounded to tens by 15."""
    assert CHECKS.adds_up("Assets", facts(assets, "10", "3", decimals=decimals)) is adds_up


def test_what_cannot_be_checked_is_not_held_against_a_fact() -> None:
    """A part that is not reported, one in another unit, and text."""
    reported = facts("99", "10", "3")
    missing = {tag: fact for tag, fact in reported.items() if tag != "Cash"}
    assert CHECKS.adds_up("Assets", missing)
    assert CHECKS.adds_up("Assets", reported | {"Cash": Fact("Cash", "10", END, "EUR", "INF")})
    assert CHECKS.adds_up("Assets", reported | {"Cash": Fact("Cash", "some", END, "USD", None)})
    assert CHECKS.adds_up("Cash", missing | {"Cash": reported["Cash"]})
    assert number(Fact("Cash", None, END, "USD")) is None


def test_parts_are_found_through_other_totals_even_in_a_circle() -> None:
    assert CHECKS.has_part("Assets", "Deposits")
    assert not CHECKS.has_part("Assets", "Goodwill")
    assert CHECKS.is_total("Deposits")
    assert not CHECKS.is_total("Allowance")
