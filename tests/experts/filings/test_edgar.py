"""Fetching a filing, with a stand-in for edgartools that keeps what EDGAR would send."""

import sys

import pytest

from finlora.experts.errors import FinLoraError
from finlora.experts.filings.edgar import fetch_filing
from finlora.moe import cli

EDGAR = """
from types import SimpleNamespace

class EdgarError(Exception):
    pass

class Filing:
    pass

def set_identity(identity):
    global IDENTITY
    IDENTITY = identity

def file(document, content):
    return SimpleNamespace(document=document, content=content)

def filing(period):
    files = [
        file("acme-2023_htm.xml", "<xbrl>\\u00e9</xbrl>"), file("../../acme-2023.xsd", b"<schema/>"),
        file("acme-2023.htm", "<html/>"), file("logo.jpg", b"jpeg"), file("R1.htm", None),
    ]
    return SimpleNamespace(report_date=period, attachments=files, accession_no="1")

class Company:
    def __init__(self, name):
        if name == "NONE":
            raise EdgarError("no company NONE")
        self.name = name

    def get_filings(self, *, form, year, amendments):
        assert (form, year, amendments) == ("10-Q", [2023, 2024], False)
        if self.name == "EMPTY":
            return [SimpleNamespace(report_date="2023-06-30", attachments=[], accession_no="7")]
        if self.name == "OLD":
            return [filing("2022-12-31")]
        return [filing("2023-03-31"), filing("2023-09-30"), filing("2024-03-31")]
"""
HTTPX = "class HTTPError(Exception):\n    pass\n"


@pytest.fixture
def edgar(tmp_path, monkeypatch):
    """The stand-in, importable in place of edgartools and of the HTTP library below it."""
    library = tmp_path / "library"
    library.mkdir()
    (library / "edgar.py").write_text(EDGAR, encoding="utf-8")
    (library / "httpx.py").write_text(HTTPX, encoding="utf-8")
    monkeypatch.syspath_prepend(library)
    for name in ("edgar", "httpx"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setenv("EDGAR_IDENTITY", "Jo Doe jo@example.com")
    yield
    for name in ("edgar", "httpx"):
        sys.modules.pop(name, None)


@pytest.mark.usefixtures("edgar")
def test_the_latest_filing_of_the_year_is_saved(tmp_path):
    """Only files that hold XBRL, under their last name, in the folder and nowhere else."""
    folder = fetch_filing("ACME", "10-Q", 2023, tmp_path / "out" / "acme")
    assert folder == tmp_path / "out" / "acme"
    assert sorted(path.name for path in folder.iterdir()) == [
        "acme-2023.htm",
        "acme-2023.xsd",
        "acme-2023_htm.xml",
    ]
    assert (folder / "acme-2023_htm.xml").read_text(encoding="utf-8") == "<xbrl>é</xbrl>"
    assert [path.name for path in folder.parent.iterdir()] == ["acme"]


@pytest.mark.usefixtures("edgar")
@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("NONE", r"10-Q of NONE for 2023 cannot be fetched from EDGAR: no company NONE"),
        ("OLD", r"OLD filed no 10-Q for a period that ends in 2023; .* end: 2022-12-31"),
        ("EMPTY", r"The filing 7 has no XBRL files"),
    ],
)
def test_what_cannot_be_fetched_leaves_nothing_behind(tmp_path, name, fault):
    """One sentence, and no half-filled folder."""
    with pytest.raises(FinLoraError, match=fault):
        fetch_filing(name, "10-Q", 2023, tmp_path / "out" / "acme")
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


@pytest.mark.usefixtures("edgar")
def test_data_build_fetches_once_and_keeps_the_filing(tmp_path, monkeypatch, capsys):
    """Beside the examples, named after what was asked for."""
    monkeypatch.chdir(tmp_path)
    build = ["data", "build", "xbrl_value", "--out", "x.jsonl"]
    assert cli.main([*build, "--cik", "42", "--form", "10-Q"]) == 2
    assert "give --year" in capsys.readouterr().err
    assert cli.main([*build, "--ticker", "ACME", "--cik", "42"]) == 2
    assert "Give one source of examples" in capsys.readouterr().err
    for _ in range(2):
        # What the stand-in sends is no filing, and is kept all the same.
        assert cli.main([*build, "--ticker", "ACME", "--form", "10-Q", "--year", "2023"]) == 2
        assert "acme-2023_htm.xml" in capsys.readouterr().err
        assert (tmp_path / "ACME-10-Q-2023" / "acme-2023_htm.xml").is_file()
        monkeypatch.delenv("EDGAR_IDENTITY", raising=False)


@pytest.mark.usefixtures("edgar")
def test_identity_and_a_new_folder_are_needed(tmp_path, monkeypatch):
    """Both are checked before anything is asked of EDGAR."""
    with pytest.raises(FinLoraError, match="exists and is never overwritten"):
        fetch_filing("ACME", "10-Q", 2023, tmp_path)
    monkeypatch.delenv("EDGAR_IDENTITY")
    with pytest.raises(FinLoraError, match="EDGAR_IDENTITY is not set"):
        fetch_filing("ACME", "10-Q", 2023, tmp_path / "out")


def test_without_edgartools_the_way_to_it_is_named(tmp_path, monkeypatch):
    """The library is optional."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(FinLoraError, match=r"pip install finlora\[edgar\]"):
        fetch_filing("ACME", "10-Q", 2023, tmp_path / "out")
