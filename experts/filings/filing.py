"""A filing as everything else sees it: facts with their contexts, labels and calculations.

Whoever parses XBRL hands over a ``Filing``; whoever asks questions about one needs no XBRL parser.

Why not Arelle: filings come without the us-gaap schemas, and offline Arelle 2.47.3 takes an element of a
plain instance for a fact only when its schema is at hand: 35 of the 760 facts of Apple's 10-Q of March 2025
(725 are set aside as undefined), none of Netflix's 10-K of 2009. Inline documents need no schema to be
read, and there Arelle is the independent check: of the 5,381 numbers of five documents it reads 5,360 as
this reader does, and the other 21 ("three") not at all, for want of the SEC's transformations. Seconds and
memory: docs/results/filings/speed.md.
"""

import re
import warnings
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from lxml import etree  # pyright: ignore[reportAttributeAccessIssue]  # lxml has no type stubs

from ..errors import FinLoraError
from .contexts import Surroundings, read_surroundings
from .inline import is_inline, read_inline
from .instance import read_instance
from .linkbases import DOCUMENTATION, Calculation, read_calculations, read_labels
from .model import Context, Duplicate, Fact, separate_duplicates
from .xml_files import local_name, parse_xml, read_root

MAX_FACTS = 500_000
"""More than any company reports; a limit for what is made to fill the memory."""

_SUFFIXES = (".xml", ".xsd", ".htm", ".html", ".xhtml", ".xbrl")
_PAGES = (".htm", ".html", ".xhtml")
_SCHEMA_REFERENCE = "{http://www.xbrl.org/2003/linkbase}schemaRef"
_HREF = "{http://www.w3.org/1999/xlink}href"
_Documents = list[tuple[etree._Element, Path]]


@dataclass(frozen=True)
class Filing:
    """The content of one filing.

    Attributes:
        company: Name of the registrant, or its CIK when the filing does not give one.
        facts: Facts in document order, each (tag, context, unit) once.
        labels: Standard English label of each tag that has one, by prefixed tag.
        calculations: Summation arcs, parent to child.
        documentation: English definition of each tag that has one, by prefixed tag.
        contexts: All contexts, in document order.
        duplicates: Facts that repeat one of ``facts``, some of them with another value.
    """

    company: str
    facts: tuple[Fact, ...]
    labels: dict[str, str] = field(default_factory=dict)
    calculations: tuple[Calculation, ...] = ()
    documentation: dict[str, str] = field(default_factory=dict)
    contexts: tuple[Context, ...] = ()
    duplicates: tuple[Duplicate, ...] = ()

    @property
    def conflicts(self) -> tuple[Fact, ...]:
        """Those of ``facts`` that were reported with another value too."""
        return tuple(dict.fromkeys(one.kept for one in self.duplicates if one.conflicting))

    @property
    def reported(self) -> int:
        """Number of facts as filed, repeated ones included."""
        return len(self.facts) + len(self.duplicates)


def read_filing(folder_or_file: str | Path) -> Filing:
    """Reads an XBRL instance or inline XBRL document and, where present, its label and calculation linkbases.

    Of a folder that holds both forms, as EDGAR's do, the plain instance is read. Several inline documents in
    a folder without one are one filing. Beside a single file those linkbases are read whose names begin like
    the schema that the file refers to. Missing linkbases are warned about; the network is never used.

    Args:
        folder_or_file: Folder with the files of one filing, or its instance or inline document.

    Raises:
        FinLoraError: Nothing there, no instance or more than one, or a file that cannot be read; the message
            names the file and, where there is one, the line.
    """
    path = Path(folder_or_file)
    if path.is_dir():
        candidates = sorted(
            one for one in path.iterdir() if one.suffix.lower() in _SUFFIXES and one.is_file()
        )
        documents = _documents(path, candidates)
    elif path.is_file():
        if path.suffix.lower() not in _SUFFIXES:
            raise FinLoraError(
                f"{path} is not a file of a filing; give one that ends in {', '.join(_SUFFIXES)}, or "
                "unpack it and give the folder."
            )
        documents = [(parse_xml(path), path)]
        candidates = _belonging(*documents[0])
    else:
        raise FinLoraError(f"{path} does not exist; give a folder with one XBRL filing, or its instance.")
    return _filing(path, documents, candidates)


def _filing(path: Path, documents: _Documents, candidates: list[Path]) -> Filing:
    surroundings = read_surroundings(documents)
    facts, duplicates = separate_duplicates(_reported(documents, surroundings))
    labels: dict[str, str] = {}
    documentation: dict[str, str] = {}
    calculations: list[Calculation] = []
    for linkbase in candidates:
        if linkbase.suffix.lower() in _PAGES or local_name(read_root(linkbase)) not in ("linkbase", "schema"):
            continue
        links = parse_xml(linkbase)
        labels |= read_labels(links)
        documentation |= read_labels(links, DOCUMENTATION)
        calculations += read_calculations(links, linkbase)
    _warn_of_missing(path, labels=labels, calculations=calculations)
    contexts = tuple(surroundings.contexts.values())
    company = _company(facts, contexts[0].entity)
    return Filing(company, facts, labels, tuple(calculations), documentation, contexts, duplicates)


def _reported(documents: _Documents, surroundings: Surroundings) -> list[Fact]:
    root, first = documents[0]
    if local_name(root) == "xbrl":
        facts = read_instance(root, first, surroundings)
    else:
        facts = read_inline(documents, surroundings)
    reported = list(islice(facts, MAX_FACTS + 1))
    if not reported:
        raise FinLoraError(f"{first} has no facts; give the XBRL instance or inline document of a filing.")
    if len(reported) > MAX_FACTS:
        raise FinLoraError(
            f"{first} has more than {MAX_FACTS:,} facts, which no filing has; give another file."
        )
    return reported


def _documents(folder: Path, candidates: list[Path]) -> _Documents:
    instances = [
        path
        for path in candidates
        if path.suffix.lower() not in _PAGES and local_name(read_root(path)) == "xbrl"
    ]
    if len(instances) == 1:
        return [(parse_xml(instances[0]), instances[0])]
    documents: _Documents = []
    if not instances:
        pages = [path for path in candidates if path.suffix.lower() in _PAGES and _mentions_inline(path)]
        documents = [(root, path) for path in pages if is_inline(root := parse_xml(path))]
    if not documents:
        found = ", ".join(path.name for path in instances) or "none"
        raise FinLoraError(
            f"{folder} must hold one XBRL instance (an XML file whose root is <xbrl>) or inline XBRL "
            f"documents, found {found}; give a folder with the files of one filing."
        )
    return documents


def _mentions_inline(path: Path) -> bool:
    """Whether a page can hold inline XBRL, so that ordinary HTML, which is no XML, is not parsed."""
    with path.open("rb") as file:
        return re.search(rb"xbrl\.org/\d{4}/inlineXBRL", file.read(2**16)) is not None


def _belonging(root: etree._Element, path: Path) -> list[Path]:
    """Schema and linkbases beside a single file: all names that begin like its schema's."""
    schemas = [Path(one.get(_HREF) or "").stem for one in root.iter(_SCHEMA_REFERENCE)]
    return sorted(
        one
        for one in path.parent.iterdir()
        if one.suffix.lower() in (".xml", ".xsd")
        and any(schema and re.fullmatch(rf"{re.escape(schema)}(_.*)?", one.stem) for schema in schemas)
        and one != path
    )


def _company(facts: tuple[Fact, ...], identifier: str) -> str:
    names = (fact.value for fact in facts if fact.tag == "dei:EntityRegistrantName" and fact.value)
    return " ".join(next(names, identifier).split())


def _warn_of_missing(path: Path, **linkbases: object) -> None:
    missing = [name for name, content in linkbases.items() if not content]
    if missing:
        warnings.warn(f"{path} comes without {' and '.join(missing)}; the facts are read.", stacklevel=4)
