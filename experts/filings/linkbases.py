"""Reads label and calculation linkbases (XBRL 2.1) of a filing."""

from collections.abc import Iterator
from dataclasses import dataclass

from lxml import etree  # pyright: ignore[reportAttributeAccessIssue]  # lxml has no type stubs

_LINK = "{http://www.xbrl.org/2003/linkbase}"
_XLINK = "{http://www.w3.org/1999/xlink}"
_STANDARD_LABEL = "http://www.xbrl.org/2003/role/label"
_XML_LANGUAGE = "{http://www.w3.org/XML/1998/namespace}lang"


@dataclass(frozen=True)
class Calculation:
    """One summand of a total: ``parent = sum of weight * child``, within one statement (role)."""

    role: str
    parent: str
    child: str
    weight: float


def read_labels(root: etree._Element) -> dict[str, str]:
    """Standard English label by prefixed tag; empty when the linkbase has no labels."""
    labels: dict[str, str] = {}
    for link in root.iterfind(f"{_LINK}labelLink"):
        tags = _tags_by_locator(link)
        texts = {
            label.get(f"{_XLINK}label"): " ".join((label.text or "").split())
            for label in link.iterfind(f"{_LINK}label")
            if label.get(f"{_XLINK}role") == _STANDARD_LABEL
            and (label.get(_XML_LANGUAGE) or "en").startswith("en")
        }
        for source, target, _ in _arcs(link, "labelArc"):
            if source in tags and texts.get(target):
                labels[tags[source]] = texts[target]
    return labels


def read_calculations(root: etree._Element) -> list[Calculation]:
    """Summation arcs in document order; empty when the linkbase has none."""
    calculations = []
    for link in root.iterfind(f"{_LINK}calculationLink"):
        tags = _tags_by_locator(link)
        role = link.get(f"{_XLINK}role") or ""
        for source, target, arc in _arcs(link, "calculationArc"):
            if source in tags and target in tags:
                weight = float(arc.get("weight") or 1)
                calculations.append(Calculation(role, tags[source], tags[target], weight))
    return calculations


def _tags_by_locator(link: etree._Element) -> dict[str, str]:
    return {
        locator.get(f"{_XLINK}label") or "": _tag(locator.get(f"{_XLINK}href") or "")
        for locator in link.iterfind(f"{_LINK}loc")
    }


def _tag(href: str) -> str:
    # Element ids are by convention prefix_Name: …/us-gaap-2023.xsd#us-gaap_Goodwill.
    return href.rpartition("#")[2].replace("_", ":", 1)


def _arcs(link: etree._Element, name: str) -> Iterator[tuple[str, str, etree._Element]]:
    for arc in link.iterfind(f"{_LINK}{name}"):
        if arc.get("use") != "prohibited":
            yield arc.get(f"{_XLINK}from") or "", arc.get(f"{_XLINK}to") or "", arc
