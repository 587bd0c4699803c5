"""Reads label and calculation linkbases (XBRL 2.1, 5.2), in files of their own or inside a schema."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lxml import etree  # pyright: ignore[reportAttributeAccessIssue]  # lxml has no type stubs

from .xml_files import fault

STANDARD_LABEL = "http://www.xbrl.org/2003/role/label"
DOCUMENTATION = "http://www.xbrl.org/2003/role/documentation"

_LINK = "{http://www.xbrl.org/2003/linkbase}"
_XLINK = "{http://www.w3.org/1999/xlink}"
_XML_LANGUAGE = "{http://www.w3.org/XML/1998/namespace}lang"


@dataclass(frozen=True)
class Calculation:
    """One summand of a total: ``parent = sum of weight * child``, within one statement (role)."""

    role: str
    parent: str
    child: str
    weight: float


def read_labels(root: etree._Element, role: str = STANDARD_LABEL) -> dict[str, str]:
    """English label of a role by prefixed tag; empty when the file has none.

    Args:
        root: Root of a linkbase or of a schema with linkbases inside.
        role: ``STANDARD_LABEL``, or ``DOCUMENTATION`` for definitions.
    """
    labels: dict[str, str] = {}
    for link in root.iter(f"{_LINK}labelLink"):
        tags = _tags_by_locator(link)
        texts = {
            label.get(f"{_XLINK}label"): " ".join("".join(map(str, label.itertext())).split())
            for label in link.iterfind(f"{_LINK}label")
            if label.get(f"{_XLINK}role", STANDARD_LABEL) == role
            and (label.get(_XML_LANGUAGE) or "en").startswith("en")
        }
        for source, target, _ in _arcs(link, "labelArc"):
            if source in tags and texts.get(target):
                labels[tags[source]] = texts[target]
    return labels


def read_calculations(root: etree._Element, path: Path) -> list[Calculation]:
    """Summation arcs in document order; empty when the file has none.

    Raises:
        FinLoraError: A weight is not a number.
    """
    calculations = []
    for link in root.iter(f"{_LINK}calculationLink"):
        tags = _tags_by_locator(link)
        role = link.get(f"{_XLINK}role") or ""
        for source, target, arc in _arcs(link, "calculationArc"):
            if source in tags and target in tags:
                try:
                    weight = float(arc.get("weight") or 1)
                except ValueError as error:
                    raise fault(arc, path, f"the weight {arc.get('weight')!r} is not a number") from error
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
