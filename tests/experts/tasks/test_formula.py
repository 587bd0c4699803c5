"""Canonical formulas: what makes two formulas one, and what does not."""

import random
from decimal import Decimal

import pytest

from finlora.experts.tasks.formula import canonical_formula, formula_value
from finlora.experts.tasks.scorers import formula_score


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("(us-gaap:A / us-gaap:B) * 100", "A/B*100"),
        ("((A / B)) * 100", "100 * (A / B)"),
        ("A + B - C", "B - C + A"),
        ("A - (B + C)", "A - B - C"),
        ("A / (B / C)", "A * C / B"),
        ("(A - B) / C", "(-B + A) / C"),
        ("1,200 / 3.50", "1200.0/3.5"),
        ("(-2722 / 5139) * 100", "-2722 / 5139 * 100"),
        ("A \N{MULTIPLICATION SIGN} B \N{DIVISION SIGN} C", "A * B / C"),
        ("custom:A / B", "custom:A / us-gaap:B"),
    ],
)
def test_same_formula(one, other):
    """Order, brackets, blanks, prefix and spelling of numbers do not count."""
    assert formula_score(one, other) == formula_score(other, one) == 1.0


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("A / B", "B / A"),
        ("A - B", "B - A"),
        ("A - B / C", "(A - B) / C"),
        ("A / B", "(A / B) * 100"),
        ("A / B", "AssetsCurrent / B"),
        ("Assets / B", "AssetsCurrent / B"),
        ("a / b", "A / B"),
        ("jpm:A / B", "A / B"),
        ("6 / 3", "2"),
        ("6 / 3", "4 / 2"),
        ("3.0 / 2", "3.01 / 2"),
        ("10 / 2", "10 / -2"),
        ("A / B", "A / B ="),
        ("A / B", "A / B extra"),
        ("A / B", "A / B)"),
    ],
)
def test_different_formula(one, other):
    """Nothing is evaluated, and near names are other names."""
    assert formula_score(one, other) == formula_score(other, one) == 0.0


@pytest.mark.parametrize("text", ["", "A B", "(", "A +", "* A", "A // B", "1,2", "((A)", "A = B", "(" * 5000])
def test_not_a_formula(text):
    """Whatever does not follow the grammar from end to end has no canonical form."""
    assert canonical_formula(text) is None


def random_formula(chance: random.Random, depth: int) -> tuple[str, str]:
    """A formula in two spellings: as drawn, and with operands of + and * swapped and brackets added."""
    if depth == 0:
        name = chance.choice(["A", "B", "C", "7", "1,000"])
        plain = {"7": "7.0", "1,000": "1000"}.get(name, f"us-gaap:{name}")
        return name, plain
    operator = chance.choice("+-*/")
    (left, left_other), (right, right_other) = (random_formula(chance, depth - 1) for _ in range(2))
    swapped = (right_other, left_other) if operator in "+*" else (left_other, right_other)
    return f"({left} {operator} {right})", f"(({swapped[0]}){operator}({swapped[1]}))"


def test_reordered_formulas_stay_equal():
    """Swapping the sides of sums and products never changes a formula."""
    chance = random.Random(0)
    for _ in range(200):
        one, other = random_formula(chance, depth=3)
        assert canonical_formula(one) == canonical_formula(other) is not None, (one, other)


def test_another_operand_makes_another_formula():
    """Replacing one operand never goes unnoticed."""
    chance = random.Random(1)
    for _ in range(200):
        formula, _ = random_formula(chance, depth=3)
        position = chance.choice([i for i, letter in enumerate(formula) if letter in "ABC7"])
        changed = formula[:position] + "D" + formula[position + 1 :]
        assert canonical_formula(changed) != canonical_formula(formula)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("(us-gaap:Assets - 5) / 2", "7.5"),
        ("-us-gaap:Assets * 100 / (5 + 5)", "-200"),
        ("2 / 3 / 4 * 12", "2"),
        ("us-gaap:Assets / (5 - 5)", None),
        ("us-gaap:Goodwill / 5", None),
        ("no formula here", None),
    ],
)
def test_formulas_are_evaluated(text: str, value: str | None) -> None:
    """Tags take the given values; what cannot be evaluated has none."""
    result = formula_value(text, {"Assets": Decimal(20)})
    assert (None if result is None else round(result, 20)) == (None if value is None else Decimal(value))
