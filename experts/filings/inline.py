"""Reads the facts of inline XBRL documents (versions 1.0 and 1.1): XHTML that people read, with tagged text.

Only facts of the default target are read. Text blocks become markup without the inline elements. Tuples and
footnotes are not read as such; facts inside tuples are.
"""

import re
import warnings
from collections.abc import Iterator
from copy import deepcopy
from html import escape
from pathlib import Path

from lxml import etree  # pyright: ignore[reportAttributeAccessIssue]  # lxml has no type stubs

from .contexts import Surroundings
from .instance import NIL
from .model import Fact
from .names import usual_name
from .numerals import decimals_of_precision, scaled
from .transformations import transform
from .xml_files import fault

INLINE_NAMESPACES = ("http://www.xbrl.org/2013/inlineXBRL", "http://www.xbrl.org/2008/inlineXBRL")
MAX_TEXT = 200 * 2**20
"""Most characters that all values of a filing may have; nested facts repeat the text inside them."""


def _inline(*names: str) -> tuple[str, ...]:
    return tuple(f"{{{namespace}}}{name}" for namespace in INLINE_NAMESPACES for name in names)


_FACTS = _inline("nonFraction", "nonNumeric", "fraction")
_EXCLUDED = _inline("exclude")
_CONTINUATIONS = _inline("continuation")
_ALL_INLINE = tuple(f"{{{namespace}}}*" for namespace in INLINE_NAMESPACES)


def is_inline(root: etree._Element) -> bool:
    """Whether a document holds inline XBRL facts."""
    return next(root.iter(*_FACTS), None) is not None


def read_inline(roots: list[tuple[etree._Element, Path]], surroundings: Surroundings) -> Iterator[Fact]:
    """Facts of the documents of one filing in document order, repeated ones as often as they are there.

    Args:
        roots: Root and path of each document; text may continue from one into another.
        surroundings: Contexts and units of all of them.

    Raises:
        FinLoraError: A fact names a context, unit or continuation that is not there, or a number cannot be
            read as its format says.
    """
    reader = _Reader(roots, surroundings)
    for root, path in roots:
        for element in root.iter(*_FACTS):
            if element.get("target") is None:
                yield reader.fact(element, path)


class _Reader:
    def __init__(self, roots: list[tuple[etree._Element, Path]], surroundings: Surroundings) -> None:
        self._surroundings = surroundings
        self._continuations = {
            element.get("id"): element for root, _ in roots for element in root.iter(*_CONTINUATIONS)
        }
        self._characters = 0

    def fact(self, element: etree._Element, path: Path) -> Fact:
        """One fact; ``path`` is the document it stands in."""
        tag = usual_name(element.get("name") or "", element.nsmap)
        context, unit = self._surroundings.of(element, tag, path)
        kind = etree.QName(element).localname
        if kind != "nonNumeric" and unit is None:
            raise fault(element, path, f"{tag} is a number and names no unit")
        if element.get(NIL) in ("true", "1"):
            value = None
        elif kind == "nonFraction":
            value = _number(element, tag, path)
        elif kind == "fraction":
            value = _fraction(element, tag, path)
        else:
            value = self._text(element, tag, path)
        self._characters += len(value or "")
        if self._characters > MAX_TEXT:
            raise fault(element, path, f"the facts up to here have more than {MAX_TEXT:,} characters")
        decimals = element.get("decimals") or decimals_of_precision(element.get("precision"), value)
        return Fact(tag, value, context, unit, decimals)

    def _text(self, element: etree._Element, tag: str, path: Path) -> str:
        parts = self._chain(element, path)
        if element.get("escape") in ("true", "1"):
            return "".join(map(_markup, parts)).strip()
        text = "".join(map(_visible, parts))
        if element.get("format") is None:
            return text.strip()
        try:
            return _transformed(element, text)
        except ValueError as error:
            # Text can be kept as written, unlike a number.
            warnings.warn(f"{path}, line {element.sourceline}: {tag} stays as written: {error}", stacklevel=2)
            return " ".join(text.split())

    def _chain(self, element: etree._Element, path: Path) -> list[etree._Element]:
        chain = [element]
        seen: set[str] = set()
        while (following := chain[-1].get("continuedAt")) is not None:
            if following not in self._continuations or following in seen:
                what = "in a circle" if following in seen else "where the filing has nothing"
                raise fault(element, path, f"text goes on at {following!r}, {what}")
            seen.add(following)
            chain.append(self._continuations[following])
        return chain


def _number(element: etree._Element, tag: str, path: Path) -> str:
    text = _visible(element).strip()
    try:
        numeral = text if element.get("format") is None else _transformed(element, text)
        return scaled(numeral, int(element.get("scale") or 0), negative=element.get("sign") == "-")
    except ValueError as error:
        raise fault(element, path, f"{tag} cannot be read: {error}") from error


def _fraction(element: etree._Element, tag: str, path: Path) -> str:
    parts = [next(element.iter(*_inline(name)), None) for name in ("numerator", "denominator")]
    if None in parts:
        raise fault(element, path, f"the fraction {tag} lacks its numerator or denominator")
    return "/".join(_number(part, tag, path) for part in parts)


def _transformed(element: etree._Element, text: str) -> str:
    prefix, _, name = (element.get("format") or "").rpartition(":")
    return transform(element.nsmap.get(prefix or None) or "", name, text)


def _visible(element: etree._Element) -> str:
    return "".join(map(str, _without_excluded(element).itertext()))


def _without_excluded(element: etree._Element) -> etree._Element:
    if next(element.iter(*_EXCLUDED), None) is None:
        return element
    copy = _copy(element)
    etree.strip_elements(copy, *_EXCLUDED, with_tail=False)
    return copy


def _markup(element: etree._Element) -> str:
    copy = _copy(_without_excluded(element))
    etree.strip_tags(copy, *_ALL_INLINE)
    inside = "".join(etree.tostring(child, encoding="unicode") for child in copy)
    return escape(copy.text or "", quote=False) + re.sub(r' xmlns(:[\w.-]+)?="[^"]*"', "", inside)


def _copy(element: etree._Element) -> etree._Element:
    copy = deepcopy(element)
    copy.tail = None
    return copy
