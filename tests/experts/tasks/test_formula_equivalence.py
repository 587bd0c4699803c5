"""Algebraic equality of formulas."""

import random
import time

import pytest
import sympy

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
        ("A * 365 / B", "365 / (B / A)"),
        ("100 - 100 * A / B", "(B - A) / B * 100"),
        ("(A + B) / 2", "A / 2 + B / 2"),
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
        ("0", "(0 / 9) * 100"),
        ("12", "(12 / 100) * 100"),
        ("100", "100 * 100 / 100 * 4 / 4"),
        ("1", "9 / 9"),
        ("5", "5 / 1"),
        ("0", "A - A"),
        ("2 + 2", "4"),
        ("12 / 4", "360 / 120"),
        ("A / (B - B)", "A / (C - C)"),
        ("A / B", "A / B; import os"),
        ("A", ""),
    ],
)
def test_other_formulas(one, other):
    """Values, 0 and 100 included, are not calculated with, and division by zero equals nothing."""
    assert not equivalent_formulas(one, other)
    assert formula_score(one, other) == formula_score(other, one) == 0.0


def drawn_formula(chance: random.Random, depth: int) -> str:
    """A formula over five names."""
    if depth == 0:
        return chance.choice("ABCDE")
    left, right = (drawn_formula(chance, depth - 1) for _ in range(2))
    return f"({left} {chance.choice('+-*/')} {right})"


def test_agrees_with_algebra():
    """The same verdict as multiplying both out over a common denominator, by SymPy."""
    chance = random.Random(0)
    names = {name: sympy.Symbol(name) for name in "ABCDE"}
    equal = 0
    for _ in range(100):
        one, other = drawn_formula(chance, 2), drawn_formula(chance, 2)
        if chance.random() < 0.4:
            other = f"({one} * B) / B - A + A"
        left, right = (sympy.sympify(formula, locals=names) for formula in (one, other))
        if any(side.has(sympy.zoo, sympy.nan) for side in (left, right)):
            continue
        assert equivalent_formulas(one, other) == (sympy.cancel(left - right) == 0), (one, other)
        equal += equivalent_formulas(one, other)
    assert equal > 25


def test_long_answers_take_no_time():
    """A product that would take 2**30 terms to multiply out is compared in any order."""
    product = " * ".join(f"(a{number} + b{number})" for number in range(30))
    assert canonical_formula(product) is not None
    start = time.perf_counter()
    assert not equivalent_formulas(product, "A / B")
    assert equivalent_formulas(product, " * ".join(product.split(" * ")[::-1]) + " / C * C")
    assert time.perf_counter() - start < 2
