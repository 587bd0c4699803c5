"""Reading XML that somebody else wrote: no network, no entities, bounded memory, errors with file and line.

A file is looked at twice: its beginning, up to the root element, with all of libxml2's limits on; then, once
it is known to declare no entities, the whole of it without the limits on text length and depth, which text
blocks of real filings exceed.
"""

import re
from html.entities import html5
from pathlib import Path

from lxml import etree  # pyright: ignore[reportAttributeAccessIssue]  # lxml has no type stubs

from ..errors import FinLoraError

MAX_BYTES = 100 * 2**20
"""Largest file that is read."""

MAX_TAGS = 2_000_000
"""Most tags, opening and closing ones, of a file that is read: they, not text, are what fills the memory."""

_CHUNK = 2**16
_PROLOG_BYTES = 2**20
_OPTIONS = {"resolve_entities": False, "no_network": True, "load_dtd": False, "dtd_validation": False}


def parse_xml(path: Path) -> etree._Element:
    """Root element of a well-formed file, without comments and processing instructions.

    Names that HTML has for characters, such as ``&nbsp;``, are known although XML does not know them.

    Raises:
        FinLoraError: The file is missing, too large (``MAX_BYTES``, ``MAX_TAGS``), not well-formed, wrongly
            encoded, or declares or uses entities.
    """
    read_root(path)
    _refuse_many_tags(path)
    try:
        root = _parse(path.read_bytes())
        if next(root.iter(etree.Entity), None) is None:
            return root
    except etree.XMLSyntaxError as error:
        if "Entity" not in (error.msg or ""):
            raise _syntax_error(path, error) from error
    try:
        root = _parse(re.sub(rb"&(\w+);", _character_reference, path.read_bytes()))
    except etree.XMLSyntaxError as error:
        raise _syntax_error(path, error) from error
    unknown = next(root.iter(etree.Entity), None)
    if unknown is not None:
        raise fault(unknown, path, f"the entity {unknown.text} is not known")
    return root


def read_root(path: Path) -> etree._Element:
    """Root element with its attributes and namespaces; of its content, part or nothing is read.

    Raises:
        FinLoraError: As ``parse_xml``, as far as the beginning of the file shows it.
    """
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise FinLoraError(
                f"{path} has {size:,} bytes and the largest file that is read has {MAX_BYTES:,}; "
                "give the filing without it."
            )
        with path.open("rb") as file:
            beginning = file.read(_PROLOG_BYTES)
    except OSError as error:
        raise FinLoraError(f"{path} cannot be read: {error}.") from error
    parser = etree.XMLPullParser(events=("start",), **_OPTIONS, huge_tree=False)
    for start in range(0, len(beginning), _CHUNK):
        broken = None
        try:
            parser.feed(beginning[start : start + _CHUNK])
        except etree.XMLSyntaxError as error:
            broken = error
        for _, root in parser.read_events():
            # What is wrong after the root's start is not the matter here.
            _refuse_entities(path, root)
            return root
        if broken is not None:
            raise _syntax_error(path, broken) from broken
    raise FinLoraError(
        f"{path}, line 1: not well-formed XML (no element in its first {len(beginning):,} bytes); "
        "fetch the file again."
    )


def local_name(element: etree._Element) -> str:
    """Name of an element without its namespace."""
    return etree.QName(element).localname


def fault(element: etree._Element, path: Path, what: str) -> FinLoraError:
    """The error that says what is wrong with an element, and where it stands."""
    return FinLoraError(f"{path}, line {element.sourceline}: {what}; fetch the file again.")


def _parse(content: bytes) -> etree._Element:
    # Bytes rather than a file: libxml2 would unpack it, and reports wrong encodings without a line.
    parser = etree.XMLParser(**_OPTIONS, huge_tree=True, remove_comments=True, remove_pis=True)
    return etree.fromstring(content, parser)


def _refuse_many_tags(path: Path) -> None:
    with path.open("rb") as file:
        tags = sum(chunk.count(b"<") for chunk in iter(lambda: file.read(_CHUNK), b""))
    if tags > MAX_TAGS:
        raise FinLoraError(
            f"{path} has {tags:,} tags and the largest file that is read has {MAX_TAGS:,}; "
            "give the filing without it."
        )


def _refuse_entities(path: Path, root: etree._Element) -> None:
    # Entities are how a small file becomes a large one, or reads other files; XBRL has no use for them.
    declared = root.getroottree().docinfo.internalDTD
    if declared is not None and next(declared.iterentities(), None) is not None:
        raise FinLoraError(
            f"{path}, line {root.sourceline}: the document type above declares entities, which no filing "
            "needs and which are never expanded; fetch the file again from its source."
        )


def _character_reference(match: re.Match[bytes]) -> bytes:
    name = match[1].decode("ascii", "replace")
    characters = html5.get(f"{name};")
    if characters is None or name in ("amp", "lt", "gt", "quot", "apos"):
        return match[0]
    return "".join(f"&#{ord(one)};" for one in characters).encode()


def _syntax_error(path: Path, error: etree.XMLSyntaxError) -> FinLoraError:
    message = re.sub(r", line \d+, column \d+$", "", error.msg or "")
    line = error.lineno or 1
    return FinLoraError(f"{path}, line {line}: not well-formed XML ({message}); fetch the file again.")
