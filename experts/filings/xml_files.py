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

    Raises:
        FinLoraError: The file is missing, too large (``MAX_BYTES``, ``MAX_TAGS``), not well-formed, wrongly
            encoded, or declares entities.
    """
    read_root(path)
    _refuse_many_tags(path)
    parser = etree.XMLParser(**_OPTIONS, huge_tree=True, remove_comments=True, remove_pis=True)
    try:
        return etree.parse(str(path), parser).getroot()
    except etree.XMLSyntaxError as error:
        if "Entity" in (error.msg or ""):
            return _parse_with_html_names(path)
        raise _syntax_error(path, error) from error


def read_root(path: Path) -> etree._Element:
    """Root element with its attributes and namespaces but without its content, which is not read.

    Raises:
        FinLoraError: As ``parse_xml``, as far as the beginning of the file shows it.
    """
    parser = etree.XMLPullParser(events=("start",), **_OPTIONS, huge_tree=False)
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise FinLoraError(
                f"{path} has {size:,} bytes and the largest file that is read has {MAX_BYTES:,}; "
                "give the filing without it."
            )
        with path.open("rb") as file:
            while file.tell() < _PROLOG_BYTES and (chunk := file.read(_CHUNK)):
                parser.feed(chunk)
                for _, root in parser.read_events():
                    _refuse_entities(path, root)
                    return root
            parser.close()
    except etree.XMLSyntaxError as error:
        raise _syntax_error(path, error) from error
    except OSError as error:
        raise FinLoraError(f"{path} cannot be read: {error}.") from error
    raise FinLoraError(f"{path} has no element in its first {_PROLOG_BYTES:,} bytes; fetch the file again.")


def local_name(element: etree._Element) -> str:
    """Name of an element without its namespace."""
    return etree.QName(element).localname


def fault(element: etree._Element, path: Path, what: str) -> FinLoraError:
    """The error that says what is wrong with an element, and where it stands."""
    return FinLoraError(f"{path}, line {element.sourceline}: {what}; fetch the file again.")


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


def _parse_with_html_names(path: Path) -> etree._Element:
    """The root of a document that uses names such as ``&nbsp;``, which XHTML would declare in its DTD."""
    content = re.sub(rb"&(\w+);", _as_number, path.read_bytes())
    parser = etree.XMLParser(**_OPTIONS, huge_tree=True, remove_comments=True, remove_pis=True)
    try:
        return etree.fromstring(content, parser)
    except etree.XMLSyntaxError as error:
        raise _syntax_error(path, error) from error


def _as_number(match: re.Match[bytes]) -> bytes:
    name = match[1].decode("ascii", "replace")
    if name in ("amp", "lt", "gt", "quot", "apos"):
        return match[0]
    characters = html5.get(f"{name};")
    return match[0] if characters is None else "".join(f"&#{ord(one)};" for one in characters).encode()


def _syntax_error(path: Path, error: etree.XMLSyntaxError) -> FinLoraError:
    line = error.lineno or 1
    return FinLoraError(f"{path}, line {line}: not well-formed XML ({error.msg}); fetch the file again.")
