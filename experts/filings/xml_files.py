"""Reading XML that somebody else wrote: no network, no external entities, clear errors."""

from pathlib import Path

from lxml import etree  # pyright: ignore[reportAttributeAccessIssue]  # lxml has no type stubs

from ..errors import FinLoraError


def parse_xml(path: Path) -> etree._Element:
    """Root element of a well-formed file."""
    parser = etree.XMLParser(resolve_entities=False, no_network=True, remove_comments=True, remove_pis=True)
    try:
        return etree.parse(str(path), parser).getroot()
    except etree.XMLSyntaxError as error:
        raise FinLoraError(f"{path} is not well-formed XML ({error.msg}); fetch the file again.") from error
    except OSError as error:
        raise FinLoraError(f"{path} cannot be read: {error}.") from error


def root_name(root: etree._Element) -> str:
    """Name of an element without its namespace."""
    return etree.QName(root).localname
