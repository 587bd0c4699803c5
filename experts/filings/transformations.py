"""What the text of an inline XBRL fact stands for: XBRL International's transformation registries 1 to 5.

https://www.xbrl.org/Specification/inlineXBRL-transformationRegistry. Registry 4 only put hyphens into the
names of registry 3, so names are compared without them. Dates are read with numerals or English month names;
those of other languages and calendars are not known. The SEC's own are in ``sec_transformations``.
"""

import re
from datetime import date

from .sec_transformations import SEC_TRANSFORMATIONS

_FIXED = {
    "fixedzero": "0",
    "zerodash": "0",
    "numdash": "0",
    "fixedempty": "",
    "nocontent": "",
    "fixedtrue": "true",
    "booleantrue": "true",
    "fixedfalse": "false",
    "booleanfalse": "false",
}
_POINT = frozenset(["numdotdecimal", "numdotdecimalapos", "numdotdecimalin", "numcommadot", "numspacedot"])
_COMMA = frozenset(["numcommadecimal", "numcommadecimalapos", "numcomma", "numdotcomma", "numspacecomma"])
_APOSTROPHES = r"'\u2019`"
_UNIT = frozenset(["numunitdecimal", "numunitdecimalapos", "numunitdecimalin"])
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
# The names of registry 1 that do not spell out the order.
_AMERICAN = frozenset(["dateslashus", "datedotus", "datelongus", "dateshortus"])
_EUROPEAN = frozenset(["dateslasheu", "datedoteu", "datelongeu", "datelonguk", "dateshortuk", "dateshorteu"])
_BETWEEN_DATES = frozenset(["st", "nd", "rd", "th", "of", "day"])


def transform(registry: str, name: str, text: str) -> str:
    """The value that a text stands for: a plain numeral, an ISO 8601 date or duration, a code.

    Args:
        registry: Namespace of the transformation.
        name: Its local name, such as "num-dot-decimal".
        text: Text as written.

    Raises:
        ValueError: The transformation is unknown, or the text is none of those it is for.
    """
    if "sec.gov" in registry:
        if name not in SEC_TRANSFORMATIONS:
            raise ValueError(f"the transformation {name!r} is not known")
        return SEC_TRANSFORMATIONS[name](" ".join(text.split()))
    plain = name.replace("-", "").lower()
    if plain in _FIXED:
        return _FIXED[plain]
    if plain in _POINT:
        return _numeral(re.sub(rf"[\s,{_APOSTROPHES}]", "", text), text)
    if plain in _COMMA:
        return _numeral(re.sub(rf"[\s.{_APOSTROPHES}]", "", text).replace(",", "."), text)
    if plain in _UNIT:
        return _with_units(text)
    if plain.startswith("date"):
        return _date(_order(plain), text)
    raise ValueError(f"the transformation {name!r} is not known")


def _numeral(cleaned: str, text: str) -> str:
    if not re.fullmatch(r"\d+(\.\d*)?|\.\d+", cleaned, re.ASCII):
        raise ValueError(f"{text.strip()!r} is not a number as its format says")
    return cleaned.rstrip(".") if cleaned[0] != "." else f"0{cleaned}"


def _with_units(text: str) -> str:
    """Such as "5 dollars 20 cents"."""
    match = re.fullmatch(rf"\D*?(\d[\d\s.,{_APOSTROPHES}]*)\D+(\d{{1,2}})\D*", text.strip())
    if match is None:
        raise ValueError(f"{text.strip()!r} is not a number with units")
    return f"{re.sub(r'[^0-9]', '', match[1])}.{match[2]:0>2}"


def _order(name: str) -> list[str]:
    if name in _AMERICAN:
        return ["month", "day", "year"]
    if name in _EUROPEAN:
        return ["day", "month", "year"]
    return re.findall("day|month|year", name)


def _date(order: list[str], text: str) -> str:
    words = re.findall(r"[^\W\d_]+|\d+", text.lower())
    words = [word for word in words if word not in _BETWEEN_DATES]
    if not order or len(words) != len(order):
        raise ValueError(f"{text.strip()!r} is not a date as its format says")
    parts = dict(zip(order, words, strict=True))
    year = _year(parts["year"]) if "year" in parts else None
    month = _month(parts["month"])
    day = int(parts.get("day", 1))
    checked = date(2000 if year is None else year, month, day)  # 2000 has a 29 February
    if year is None:
        return f"--{checked:%m-%d}"
    return checked.isoformat() if "day" in parts else checked.isoformat()[:7]


def _year(word: str) -> int:
    return int(word) + 2000 if len(word) <= 2 else int(word)


def _month(word: str) -> int:
    if word.isdecimal():
        return int(word)
    if word[:3] not in _MONTHS:
        raise ValueError(f"{word!r} is not an English month")
    return _MONTHS.index(word[:3]) + 1
