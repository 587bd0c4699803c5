"""Files made to read other files, fill the memory or use the network, and files that are merely broken."""

import gzip
import socket
import tracemalloc
import zipfile

import pytest

from finlora.experts.errors import FinLoraError
from finlora.experts.filings import xml_files
from finlora.experts.filings.filing import read_filing
from finlora.experts.filings.xml_files import parse_xml, read_root

LAUGHS = "".join(f'<!ENTITY l{n + 1} "{f"&l{n};" * 10}">' for n in range(9))


@pytest.mark.parametrize(
    "doctype",
    [
        f'<!DOCTYPE xbrl [<!ENTITY l0 "ha">{LAUGHS}]>',
        '<!DOCTYPE xbrl [<!ENTITY l9 SYSTEM "file:///etc/passwd">]>',
        '<!DOCTYPE xbrl [<!ENTITY l9 SYSTEM "http://127.0.0.1:9/x">]>',
        '<!DOCTYPE xbrl [<!ENTITY % outer SYSTEM "http://127.0.0.1:9/x"> %outer; <!ENTITY l9 "">]>',
    ],
)
@pytest.mark.parametrize("body", ["<xbrl>&l9;</xbrl>", '<xbrl a="&l9;"/>', "<xbrl><a>&l9;</a></xbrl>"])
def test_entities_are_refused_before_anything_is_expanded(tmp_path, monkeypatch, doctype, body):
    """Billion laughs, files of the machine, and files of the network, in text and in attributes."""
    monkeypatch.setattr(socket, "socket", None)
    path = tmp_path / "acme.xml"
    path.write_text(f"<?xml version='1.0'?>\n{doctype}\n{body}", encoding="utf-8")
    tracemalloc.start()
    with pytest.raises(FinLoraError, match=r"acme\.xml, line \d+: "):
        parse_xml(path)
    assert tracemalloc.get_traced_memory()[1] < 2**22
    tracemalloc.stop()


def test_a_document_type_without_entities_is_allowed_and_not_fetched(tmp_path):
    """XHTML has one, and uses names from it that HTML knows."""
    path = tmp_path / "acme.htm"
    doctype = '<!DOCTYPE html PUBLIC "-//W3C//DTD XHTML 1.0 Strict//EN" "http://127.0.0.1:9/xhtml1.dtd">'
    path.write_text(f"{doctype}<html><p>a&nbsp;b&mdash;c&amp;d</p></html>", encoding="utf-8")
    assert "".join(parse_xml(path).itertext()) == "a\u00a0b\u2014c&d"
    path.write_text("<html><p>a&nbsp;b&unheard;</p></html>", encoding="utf-8")
    with pytest.raises(FinLoraError, match=r"acme\.htm, line 1: .*unheard"):
        parse_xml(path)
    path.write_text(f"{doctype}<html>\n&unheard;</html>", encoding="utf-8")
    with pytest.raises(FinLoraError, match=r"acme\.htm, line \d: the entity &unheard; is not known"):
        parse_xml(path)


def test_files_beyond_the_limits_are_refused(tmp_path, monkeypatch):
    """By size without reading them, by tags without building a tree, by a beginning that never ends."""
    path = tmp_path / "acme.xml"
    with path.open("wb") as file:
        file.truncate(200 * 2**20)
    with pytest.raises(FinLoraError, match=r"acme\.xml has 209,715,200 bytes and the largest .* 104,857,600"):
        parse_xml(path)
    monkeypatch.setattr(xml_files, "MAX_TAGS", 5)
    path.write_text("<a><b/><b/><b/><b/></a>", encoding="utf-8")
    with pytest.raises(FinLoraError, match=r"acme\.xml has 6 tags and the largest .* 5"):
        parse_xml(path)
    path.write_text("<!-- -->\n" * 2**17, encoding="utf-8")
    with pytest.raises(FinLoraError, match="no element in its first 1,048,576 bytes"):
        read_root(path)


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"<xbrl>\n\n<a></xbrl>", "line 3: not well-formed"),
        (b"", "line 1: not well-formed"),
        (b"<?xml version='1.0' encoding='utf-8'?>\n<xbrl>\n\xe9\xe8</xbrl>", "line 3: .*(UTF-8|encoding)"),
        (b"<?xml version='1.0' encoding='klingon'?>\n<xbrl/>", "line 1: .*encoding"),
        (gzip.compress(b"<xbrl/>", mtime=0), "line 1: not well-formed"),
        (b"<xbrl>" * 3000, "line 1: not well-formed"),
    ],
)
def test_broken_files_are_named_with_the_line(tmp_path, content, fault):
    """Cut off, wrongly encoded, compressed, or nested without end."""
    path = tmp_path / "acme.xml"
    path.write_bytes(content)
    with pytest.raises(FinLoraError, match=rf"acme\.xml, {fault}"):
        parse_xml(path)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "iso-8859-1"])
def test_declared_encodings_are_read(tmp_path, encoding):
    """With or without a byte-order mark."""
    path = tmp_path / "acme.xml"
    name = encoding.removesuffix("-sig")
    path.write_bytes(f"<?xml version='1.0' encoding='{name}'?><xbrl>\u00e9</xbrl>".encode(encoding))
    assert parse_xml(path).text == "\u00e9"


def test_archives_are_never_unpacked(tmp_path):
    """So that none can unpack to more than the memory holds."""
    path = tmp_path / "acme.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("acme.xml", b"0" * 2**24)
    with pytest.raises(FinLoraError, match=r"acme\.zip is not a file of a filing; .* unpack it"):
        read_filing(path)
    path.rename(tmp_path / "acme.xml")
    with pytest.raises(FinLoraError, match=r"acme\.xml, line 1: not well-formed"):
        read_filing(tmp_path / "acme.xml")


def test_a_folder_in_place_of_a_file_is_named(tmp_path):
    """The system's own message, in a sentence."""
    with pytest.raises(FinLoraError, match="cannot be read"):
        parse_xml(tmp_path)
