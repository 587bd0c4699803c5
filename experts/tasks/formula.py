"""Arithmetic formulas over tags and numbers, brought to one canonical form for comparison.

Sums and products are flattened and ordered; comparing evaluates nothing, so equal values do not make equal
formulas.
"""

import re
from collections.abc import Mapping
from decimal import Decimal, DecimalException

Canonical = tuple
"""("number", Decimal), ("name", str), or ("sum" | "product", sorted pairs of sign/exponent and operand)."""

_TOKEN = re.compile(
    r"\s*(?:(?P<number>\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d*)?|\.\d+)|(?P<name>(?:us-gaap|[a-z0-9]+):\w+|[A-Za-z]\w*)"
    r"|(?P<sign>[-+*/()]))"
)
_LOOKALIKES = str.maketrans({"\N{MULTIPLICATION SIGN}": "*", "\N{DIVISION SIGN}": "/", "\N{MINUS SIGN}": "-"})
_MAX_TOKENS = 200


def canonical_formula(text: str) -> Canonical | None:
    """Parses ``+ - * /``, brackets, numbers and tags; None when the whole text is not such a formula.

    Two formulas have the same canonical form when one turns into the other by reordering sums and products,
    by adding or dropping redundant brackets, ``us-gaap:``, blanks and thousands separators, or by writing a
    number differently (``1200.0``).
    """
    tokens = _tokens(text.translate(_LOOKALIKES).strip())
    if not tokens or len(tokens) > _MAX_TOKENS:
        return None
    try:
        formula, rest = _sum(tokens)
    except _NotAFormulaError:
        return None
    return formula if not rest else None


def formula_value(text: str, values: Mapping[str, Decimal] | None = None) -> Decimal | None:
    """The number that a formula comes to; None if it is none, names an unknown tag or divides by zero.

    Args:
        text: Such as ``(us-gaap:Assets - 5) / 2``.
        values: Numbers by tag without ``us-gaap:``.
    """
    formula = canonical_formula(text)
    if formula is None:
        return None
    try:
        return _evaluated(formula, values or {})
    except (KeyError, DecimalException):
        return None


def _evaluated(formula: Canonical, values: Mapping[str, Decimal]) -> Decimal:
    kind, content = formula
    if kind == "number":
        return content
    if kind == "name":
        return values[content]
    parts = [(sign, _evaluated(part, values)) for sign, part in content]
    if kind == "sum":
        return sum((sign * part for sign, part in parts), Decimal())
    product = Decimal(1)
    for exponent, part in parts:
        product = product * part if exponent == 1 else product / part
    return product


class _NotAFormulaError(Exception):
    """The tokens do not follow the grammar."""


def _tokens(text: str) -> list[str | Decimal] | None:
    tokens: list[str | Decimal] = []
    position = 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            return None
        if match["number"]:
            tokens.append(Decimal(match["number"].replace(",", "")).normalize())
        else:
            tokens.append((match["name"] or match["sign"]).removeprefix("us-gaap:"))
        position = match.end()
    return tokens


def _sum(tokens: list) -> tuple[Canonical, list]:
    sign = 1
    terms: list = []
    while True:
        term, tokens = _product(tokens)
        _merge("sum", terms, sign, term)
        if not tokens or tokens[0] not in ("+", "-"):
            return _ordered("sum", terms), tokens
        sign, tokens = (1 if tokens[0] == "+" else -1), tokens[1:]


def _product(tokens: list) -> tuple[Canonical, list]:
    exponent = 1
    factors: list = []
    while True:
        factor, tokens = _operand(tokens)
        _merge("product", factors, exponent, factor)
        if not tokens or tokens[0] not in ("*", "/"):
            return _ordered("product", factors), tokens
        exponent, tokens = (1 if tokens[0] == "*" else -1), tokens[1:]


def _operand(tokens: list) -> tuple[Canonical, list]:
    if not tokens:
        raise _NotAFormulaError
    token, rest = tokens[0], tokens[1:]
    if isinstance(token, Decimal):
        return ("number", token), rest
    if token in ("-", "+"):
        operand, rest = _operand(rest)
        return (_negated(operand) if token == "-" else operand), rest
    if token == "(":
        inner, rest = _sum(rest)
        if not rest or rest[0] != ")":
            raise _NotAFormulaError
        return inner, rest[1:]
    if token in ("*", "/", ")"):
        raise _NotAFormulaError
    return ("name", token), rest


def _negated(operand: Canonical) -> Canonical:
    if operand[0] == "number":
        return ("number", -operand[1])
    terms: list = []
    _merge("sum", terms, -1, operand)
    return _ordered("sum", terms)


def _merge(kind: str, parts: list, sign: int, operand: Canonical) -> None:
    if operand[0] == kind:
        parts.extend((sign * inner_sign, part) for inner_sign, part in operand[1])
    elif kind == "sum" and operand[0] == "number" and operand[1] < 0:
        parts.append((-sign, ("number", -operand[1])))
    else:
        parts.append((sign, operand))


def _ordered(kind: str, parts: list) -> Canonical:
    if len(parts) == 1:
        sign, part = parts[0]
        if sign == 1:
            return part
        if kind == "sum" and part[0] == "number":
            return ("number", -part[1])
    return (kind, tuple(sorted(parts, key=repr)))
