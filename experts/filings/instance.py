"""Reads the facts of a plain XBRL 2.1 instance document.

Footnotes are not read, and nothing is validated against the taxonomy, which need not be at hand.
"""

from collections.abc import Iterator
from pathlib import Path

from lxml import etree  # pyright: ignore[reportAttributeAccessIssue]  # lxml has no type stubs

from .contexts import XBRLI, Surroundings
from .model import Fact
from .names import prefixed
from .numerals import decimals_of_precision

NIL = "{http://www.w3.org/2001/XMLSchema-instance}nil"


def read_instance(root: etree._Element, path: Path, surroundings: Surroundings) -> Iterator[Fact]:
    """Facts in document order, those inside tuples too, repeated ones as often as they are there.

    Raises:
        FinLoraError: A fact names a context or unit that is not there.
    """
    for element in root.iter(etree.Element):
        if element.get("contextRef") is not None:
            yield _fact(element, path, surroundings)


def _fact(element: etree._Element, path: Path, surroundings: Surroundings) -> Fact:
    name = etree.QName(element)
    tag = prefixed(name.namespace, name.localname, element.prefix)
    context, unit = surroundings.of(element, tag, path)
    value = None if element.get(NIL) in ("true", "1") else _value(element)
    decimals = element.get("decimals") or decimals_of_precision(element.get("precision"), value)
    return Fact(tag, value, context, unit, decimals)


def _value(element: etree._Element) -> str:
    numerator, denominator = element.find(f"{XBRLI}numerator"), element.find(f"{XBRLI}denominator")
    if numerator is not None and denominator is not None:
        return f"{(numerator.text or '').strip()}/{(denominator.text or '').strip()}"
    return "".join(map(str, element.itertext())).strip()
