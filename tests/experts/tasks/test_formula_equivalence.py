"""Algebraic equality of formulas."""

import random
import time
from fractions import Fraction

import pytest

from finlora.experts.tasks.formula import canonical_formula
from finlora.experts.tasks.formula_equivalence import equivalent_formulas
from finlora.experts.tasks.scorers import formula_score


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("us-gaap:A / B * 100", "100 * A / us-gaap:B"),
        ("(A - B) / C", "A / C - B / C"),
        ("1 - B / A", "(A - B) / A"),
        ("(100,000 - 25000) / 100000 * 100", "100 * (1 - 25000/100000)"),
        ("A / (B / C)", "A * C / B"),
        ("A - -5", "A + 5"),
    ],
)
def test_equal_formulas(one, other):
    """Whatever algebra allows, on tags and on values."""
    assert equivalent_formulas(one, other)
    assert formula_score(other, one) == 1.0


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("A / B", "A / B * 100"),
        ("(A - B) / C", "A - B / C"),
        ("7 / 3", "14 / 6"),
        ("6 / 3", "2"),
        ("5", "-5"),
        ("A / (B - B)", "A / (C - C)"),
        ("A / B", "A / B; import os"),
        ("A", ""),
    ],
)
def test_other_formulas(one, other):
    """Values are not calculated with, and division by zero equals nothing."""
    assert not equivalent_formulas(one, other)


def drawn_formula(chance: random.Random, depth: int) -> str:
    """A formula over five names."""
    if depth == 0:
        return chance.choice("ABCDE")
    left, right = (drawn_formula(chance, depth - 1) for _ in range(2))
    return f"({left} {chance.choice('+-*/')} {right})"


def value_of(formula: str, names: dict[str, Fraction]) -> Fraction | None:
    """The formula's value for values of its names; None where it divides by zero."""
    try:
        return eval(formula, {"__builtins__": {}}, dict(names))
    except ZeroDivisionError:
        return None


def test_agrees_with_values():
    """Equal formulas have equal values and others do not, at three random points."""
    chance = random.Random(0)
    equal = 0
    for _ in range(150):
        one, other = drawn_formula(chance, 2), drawn_formula(chance, 2)
        if chance.random() < 0.4:
            other = f"({one} * B) / B - A + A"
        points = [{name: Fraction(chance.randrange(1, 10**6)) for name in "ABCDE"} for _ in range(3)]
        values = [(value_of(one, point), value_of(other, point)) for point in points]
        if any(value is None for pair in values for value in pair):
            continue
        assert equivalent_formulas(one, other) == all(left == right for left, right in values), (one, other)
        equal += equivalent_formulas(one, other)
    assert equal > 30


def test_long_answers_take_no_time():
    """A product that would take 2**60 terms to multiply out is compared as it is written."""
    product = " * ".join(f"(a{number} + b{number})" for number in range(30))
    assert canonical_formula(product) is not None
    start = time.perf_counter()
    assert not equivalent_formulas(product, "A / B")
    assert equivalent_formulas(product, f"({product})")
    assert time.perf_counter() - start < 2
