"""Reads the facts of an XBRL 2.1 instance document as filed with the SEC.

Tuples, fractions and footnotes are not read (SEC filings may not use the first two), nothing is validated
against the taxonomy, and inline XBRL is not read.
"""

import re
from pathlib import Path

from lxml import etree  # pyright: ignore[reportAttributeAccessIssue]  # lxml has no type stubs

from ..errors import FinLoraError
from .model import Context, Fact

_XBRLI = "{http://www.xbrl.org/2003/instance}"
_XBRLDI = "{http://xbrl.org/2006/xbrldi}"
_NIL = "{http://www.w3.org/2001/XMLSchema-instance}nil"
_STANDARD_NAMESPACE = re.compile(r"/(us-gaap|dei|srt|ecd|country|currency)/\d{4}")


def read_instance(root: etree._Element, path: Path) -> tuple[tuple[Fact, ...], str]:
    """Facts in document order without duplicates, and the registrant's identifier.

    Facts with the same tag, context and unit are one fact; where their values differ (rounded in prose, exact
    in a table) the most precise stays.

    Raises:
        FinLoraError: A fact names a context or unit that is not there, or there are no facts.
    """
    contexts = {element.get("id"): _context(element) for element in root.iterfind(f"{_XBRLI}context")}
    units = {element.get("id"): _unit(element) for element in root.iterfind(f"{_XBRLI}unit")}
    facts: dict[tuple, Fact] = {}
    for element in root.iterchildren(tag=etree.Element):
        if element.get("contextRef") is None:
            continue
        fact = _fact(element, contexts, units, path)
        key = (fact.tag, fact.context.id, fact.unit)
        if key not in facts or _precision(fact) > _precision(facts[key]):
            facts[key] = fact
    if not facts:
        raise FinLoraError(f"{path} has no facts; give the XBRL instance of a filing.")
    identifiers = (context.entity for context in contexts.values())
    return tuple(facts.values()), next(identifiers, "")


def _fact(element: etree._Element, contexts: dict, units: dict, path: Path) -> Fact:
    name = etree.QName(element)
    standard = _STANDARD_NAMESPACE.search(name.namespace or "")
    tag = f"{standard[1] if standard else element.prefix}:{name.localname}"
    context, unit = element.get("contextRef"), element.get("unitRef")
    for kind, reference, known in (("context", context, contexts), ("unit", unit, units)):
        if reference is not None and reference not in known:
            where = f"{path}, line {element.sourceline}"
            raise FinLoraError(
                f"{where}: {tag} names the {kind} {reference!r}, which the file lacks; fetch the file again."
            )
    nil = element.get(_NIL) in ("true", "1")
    return Fact(
        tag=tag,
        value=None if nil else (element.text or "").strip(),
        context=contexts[context],
        unit=units[unit] if unit is not None else None,
        decimals=element.get("decimals"),
    )


def _context(element: etree._Element) -> Context:
    instant = element.findtext(f"{_XBRLI}period/{_XBRLI}instant")
    end = instant or element.findtext(f"{_XBRLI}period/{_XBRLI}endDate") or "forever"
    start = element.findtext(f"{_XBRLI}period/{_XBRLI}startDate")
    return Context(
        id=element.get("id") or "",
        entity=(element.findtext(f"{_XBRLI}entity/{_XBRLI}identifier") or "").strip(),
        start=start.strip() if start else None,
        end=end.strip(),
        dimensions=tuple(sorted(_dimension(member) for member in element.iter(f"{_XBRLDI}*"))),
    )


def _dimension(member: etree._Element) -> tuple[str, str]:
    value = "".join(str(text) for text in member.itertext())
    return member.get("dimension") or "", " ".join(value.split())


def _unit(element: etree._Element) -> str:
    numerator = element.findall(f"{_XBRLI}divide/{_XBRLI}unitNumerator/{_XBRLI}measure")
    denominator = element.findall(f"{_XBRLI}divide/{_XBRLI}unitDenominator/{_XBRLI}measure")
    if numerator:
        return f"{_measures(numerator)}/{_measures(denominator)}"
    return _measures(element.findall(f"{_XBRLI}measure"))


def _measures(elements: list[etree._Element]) -> str:
    return "*".join((element.text or "").strip().rpartition(":")[2] for element in elements)


def _precision(fact: Fact) -> float:
    if fact.value is None:
        return float("-inf")
    if fact.decimals is None or not re.fullmatch(r"-?\d+", fact.decimals):
        return float("inf")
    return float(fact.decimals)
