"""Reads contexts and units (XBRL 2.1, 4.7 and 4.8), which plain instances and inline documents share."""

import re
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

from lxml import etree  # pyright: ignore[reportAttributeAccessIssue]  # lxml has no type stubs

from .model import Context
from .names import usual_name
from .xml_files import fault

XBRLI = "{http://www.xbrl.org/2003/instance}"
_XBRLDI = "{http://xbrl.org/2006/xbrldi}"
_PERIOD_TEXT = re.compile(r"(\d{4}-\d{2}-\d{2})(T\d{2}:\d{2}:\d{2}(?:\.\d+)?)?(?:Z|[+-]\d{2}:\d{2})?")


@dataclass(frozen=True)
class Surroundings:
    """Contexts and units of a filing by their id, to resolve what facts refer to."""

    contexts: dict[str, Context]
    units: dict[str, str]

    def of(self, element: etree._Element, tag: str, path: Path) -> tuple[Context, str | None]:
        """Context and unit of a fact.

        Raises:
            FinLoraError: The fact names one that is not there, no context, or decimals without a unit.
        """
        context = element.get("contextRef")
        unit = element.get("unitRef")
        for kind, reference, known in (("context", context, self.contexts), ("unit", unit, self.units)):
            if reference is not None and reference not in known:
                raise fault(element, path, f"{tag} names the {kind} {reference!r}, which the filing lacks")
        if context is None:
            raise fault(element, path, f"{tag} names no context")
        if unit is None and (element.get("decimals") or element.get("precision")):
            raise fault(element, path, f"{tag} is a number and names no unit")
        return self.contexts[context], None if unit is None else self.units[unit]


def read_surroundings(roots: list[tuple[etree._Element, Path]]) -> Surroundings:
    """All contexts and units of the documents of a filing.

    Raises:
        FinLoraError: A context without a period that can be read, or two different contexts with one id.
    """
    contexts: dict[str, Context] = {}
    units: dict[str, str] = {}
    for root, path in roots:
        for element in root.iter(f"{XBRLI}context"):
            context = _context(element, path)
            if contexts.setdefault(context.id, context) != context:
                raise fault(element, path, f"a second, different context is called {context.id!r}")
        for element in root.iter(f"{XBRLI}unit"):
            units.setdefault(element.get("id") or "", _unit(element))
    return Surroundings(contexts, units)


def _context(element: etree._Element, path: Path) -> Context:
    period = element.find(f"{XBRLI}period")
    if period is None or len(period) == 0:
        raise fault(element, path, f"the context {element.get('id')!r} has no period")
    instant, end = period.find(f"{XBRLI}instant"), period.find(f"{XBRLI}endDate")
    start = period.find(f"{XBRLI}startDate")
    last = instant if instant is not None else end
    return Context(
        id=element.get("id") or "",
        entity=(element.findtext(f"{XBRLI}entity/{XBRLI}identifier") or "").strip(),
        start=None if start is None else _day(start, path, ends=False),
        end="forever" if last is None else _day(last, path, ends=True),
        dimensions=tuple(
            sorted(
                _dimension(member)
                for place in element.iter(f"{XBRLI}segment", f"{XBRLI}scenario")
                for member in place.iterchildren(tag=etree.Element)
            )
        ),
    )


def _day(element: etree._Element, path: Path, *, ends: bool) -> str:
    text = (element.text or "").strip()
    match = _PERIOD_TEXT.fullmatch(text)
    try:
        day = date.fromisoformat(match[1] if match else text)
    except ValueError as error:
        raise fault(element, path, f"{text!r} is not a date") from error
    # A period that ends at midnight ends with the day before (XBRL 2.1, 4.7.2).
    at_midnight = match is not None and (match[2] or "").startswith("T00:00:00")
    return (day - timedelta(days=1) if ends and at_midnight else day).isoformat()


def _dimension(member: etree._Element) -> tuple[str, str]:
    text = " ".join("".join(map(str, member.itertext())).split())
    if member.tag == f"{_XBRLDI}explicitMember":
        text = usual_name(text, member.nsmap)
    # Before dimensions (2006) a segment held elements of the company's own, which say as much.
    name = etree.QName(member)
    own = f"{member.prefix}:{name.localname}" if member.prefix else name.localname
    return usual_name(member.get("dimension") or own, member.nsmap), text


def _unit(element: etree._Element) -> str:
    numerator = element.findall(f"{XBRLI}divide/{XBRLI}unitNumerator/{XBRLI}measure")
    denominator = element.findall(f"{XBRLI}divide/{XBRLI}unitDenominator/{XBRLI}measure")
    if numerator:
        return f"{_measures(numerator)}/{_measures(denominator)}"
    return _measures(element.findall(f"{XBRLI}measure"))


def _measures(elements: list[etree._Element]) -> str:
    return "*".join((element.text or "").strip().rpartition(":")[2] for element in elements)
