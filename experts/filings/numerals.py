"""Numbers as text: digits are moved and counted, never rounded."""

from decimal import Decimal, InvalidOperation

MAX_SCALE = 100
"""No reported number is larger; a scale of a billion would be a text of a billion digits."""


def scaled(numeral: str, scale: int, *, negative: bool) -> str:
    """A plain numeral times ten to the ``scale``, all digits kept: ``scaled("5.750", -2)`` is "0.05750".

    Raises:
        ValueError: The text is not a plain numeral, or the scale is beyond ``MAX_SCALE``.
    """
    try:
        sign, digits, exponent = Decimal(numeral).as_tuple()
    except InvalidOperation as error:
        raise ValueError(f"{numeral!r} is not a number") from error
    if not isinstance(exponent, int) or abs(exponent) + abs(scale) > MAX_SCALE:
        raise ValueError(f"{numeral!r} with scale {scale} is not a number that a company reports")
    if not any(digits):
        return "0"
    text = format(Decimal((sign, digits, exponent + scale)), "f")
    if not negative:
        return text
    return text[1:] if text.startswith("-") else f"-{text}"


def decimals_of_precision(precision: str | None, value: str | None) -> str | None:
    """What the older attribute ``precision`` (significant digits) means in decimals (XBRL 2.1, 4.6.6)."""
    if precision is None or precision == "INF" or value is None:
        return precision
    try:
        number = Decimal(value)
        return str(int(precision) - number.adjusted() - 1) if number else "INF"
    except (InvalidOperation, ValueError):
        return None
