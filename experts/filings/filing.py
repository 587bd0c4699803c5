"""A filing as everything else sees it: facts with their contexts, labels and calculations.

Whoever parses XBRL hands over a ``Filing``; whoever asks questions about one needs no XBRL parser.
"""

from dataclasses import dataclass, field
from pathlib import Path

from ..errors import FinLoraError
from .instance import read_instance
from .linkbases import Calculation, read_calculations, read_labels
from .model import Fact
from .xml_files import local_name, parse_xml


@dataclass(frozen=True)
class Filing:
    """The content of one filing.

    Attributes:
        company: Name of the registrant, or its CIK when the filing does not give one.
        facts: Facts in document order, each (tag, context, unit) once.
        labels: Standard English label of each tag that has one, by prefixed tag.
        calculations: Summation arcs, parent to child.
    """

    company: str
    facts: tuple[Fact, ...]
    labels: dict[str, str] = field(default_factory=dict)
    calculations: tuple[Calculation, ...] = ()


def read_filing(folder: str | Path) -> Filing:
    """Reads the XBRL instance of a folder and, where present, its label and calculation linkbases.

    Raises:
        FinLoraError: The folder is missing, has no XBRL instance or more than one, or a file is not
            well-formed.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FinLoraError(f"{folder} is not a folder; give a folder with the XML files of one XBRL filing.")
    roots = {path: parse_xml(path) for path in sorted(folder.glob("*.xml"))}
    instances = [path for path, root in roots.items() if local_name(root) == "xbrl"]
    if len(instances) != 1:
        found = ", ".join(path.name for path in instances) or "none"
        raise FinLoraError(
            f"{folder} must hold one XBRL instance (an XML file whose root is <xbrl>), found {found}; "
            "give a folder with the XML files of one filing."
        )
    facts, identifier = read_instance(roots[instances[0]], instances[0])
    linkbases = [root for root in roots.values() if local_name(root) == "linkbase"]
    labels: dict[str, str] = {}
    calculations: list[Calculation] = []
    for root in linkbases:
        labels |= read_labels(root)
        calculations += read_calculations(root)
    return Filing(_company(facts, identifier), facts, labels, tuple(calculations))


def _company(facts: tuple[Fact, ...], identifier: str) -> str:
    names = (fact.value for fact in facts if fact.tag == "dei:EntityRegistrantName" and fact.value)
    return " ".join(next(names, identifier).split())
