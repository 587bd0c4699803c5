"""Whether two formulas are algebraically equal: ``a / b * 100`` equals ``100 * a / b``.

Tags and numbers are variables. Formulas that are equal as fractions of polynomials have equal values wherever
both are defined, and others differ almost everywhere (Schwartz 1980), so both are evaluated, exactly, at one
random point that depends on nothing but the names of the variables.
"""

import random
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache

from .formula import Canonical, canonical_formula

_ONE = Decimal(1)
_RANGE = 2**61
"""A wrong equality has a chance of the formulas' degree in this many."""


@lru_cache(maxsize=4096)
def equivalent_formulas(one: str, other: str) -> bool:
    """Whether both texts are formulas and equal as rational functions of their tags and numbers.

    Every number, 0 and 100 included, may be a value from a statement, so it is kept apart like a tag; a
    formula "substituted with values" does not equal its result. Only 1 stands for itself, as ``1 - a / b``
    equals ``(b - a) / b``. Both formulas must have the same numbers, but for a 1 that is added or subtracted:
    ``12 / 100 * 100`` does not equal ``12``, nor ``0 / 9 * 100`` ``0``. Tags are compared without
    ``us-gaap:``. Where a denominator is zero whatever the values, nothing else is equal.
    """
    forms = canonical_formula(one), canonical_formula(other)
    if forms[0] is None or forms[1] is None:
        return False
    if forms[0] == forms[1]:
        return True
    if _numbers(forms[0]) != _numbers(forms[1]):
        return False
    try:
        return _value(forms[0]) == _value(forms[1])
    except ZeroDivisionError:
        return False


def _numbers(form: Canonical) -> set[Decimal]:
    """The numbers of a formula without their signs, and without a 1 that is a term of a sum."""
    kind, content = form
    if kind == "name":
        return set()
    if kind == "number":
        return {abs(content)}
    found = [_numbers(part) for _, part in content if kind == "product" or part != ("number", _ONE)]
    return set().union(*found)


def _value(form: Canonical) -> Fraction:
    kind, content = form
    if kind == "number":
        size = Fraction(1) if abs(content) == _ONE else _drawn(f"value {abs(content)}")
        return -size if content < 0 else size
    if kind == "name":
        return _drawn(f"tag {content}")
    parts = [(sign, _value(part)) for sign, part in content]
    if kind == "sum":
        return sum((sign * part for sign, part in parts), Fraction(0))
    product = Fraction(1)
    for exponent, part in parts:
        product *= part**exponent
    return product


def _drawn(variable: str) -> Fraction:
    return Fraction(random.Random(variable).randrange(1, _RANGE))
