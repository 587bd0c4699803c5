"""Whether two formulas are algebraically equal: ``a / b * 100`` equals ``100 * a / b``, by SymPy.

The formulas are parsed by ``canonical_formula``, never by SymPy, which would evaluate what a model wrote.
"""

from decimal import Decimal
from functools import lru_cache

import sympy

from .formula import Canonical, canonical_formula

CONSTANTS = frozenset(map(Decimal, (1, 2, 4, 12, 100, 360, 365)))
"""Numbers that stand for themselves. Every other one is a value from a statement and is kept apart like a
name, so that a formula "substituted with values" does not equal its result."""

_MOST_OPERANDS = 16
"""In a longer formula only the canonical forms are compared: multiplying out takes time exponential in it."""


@lru_cache(maxsize=4096)
def equivalent_formulas(one: str, other: str) -> bool:
    """Whether both texts are formulas and equal as rational functions of their tags and values.

    Tags are compared without ``us-gaap:``. Where a denominator is zero whatever the values, nothing is equal.
    """
    forms = canonical_formula(one), canonical_formula(other)
    if forms[0] is None or forms[1] is None:
        return False
    if forms[0] == forms[1]:
        return True
    if any(_operands(form) > _MOST_OPERANDS for form in forms if form is not None):
        return False
    left, right = (_expression(form) for form in forms if form is not None)
    if left.has(sympy.zoo, sympy.nan) or right.has(sympy.zoo, sympy.nan):
        return False
    return bool(sympy.cancel(left - right) == 0)


def _operands(form: Canonical) -> int:
    kind, content = form
    return 1 if kind in ("number", "name") else sum(_operands(part) for _, part in content)


def _expression(form: Canonical) -> sympy.Expr:
    kind, content = form
    if kind == "name":
        return sympy.Symbol(f"tag {content}")
    if kind == "number":
        size = abs(content)
        symbol = sympy.Integer(int(size)) if size in CONSTANTS or not size else sympy.Symbol(f"value {size}")
        return -symbol if content < 0 else symbol
    parts = [(sign, _expression(part)) for sign, part in content]
    if kind == "sum":
        return sympy.Add(*(sign * part for sign, part in parts))
    return sympy.Mul(*(part**sign for sign, part in parts))
