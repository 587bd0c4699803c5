"""Measuring readers of filings."""

import json
import sys

import pytest

from finlora.benchmarks import filing_speed

CONTEXT = """<context id="c"><entity><identifier scheme="http://www.sec.gov/CIK">42</identifier></entity>
  <period><instant>2023-12-31</instant></period></context>
  <unit id="u"><measure>iso4217:USD</measure></unit>"""
INSTANCE = f"""<xbrl xmlns="http://www.xbrl.org/2003/instance" xmlns:gaap="http://fasb.org/us-gaap/2023">
  {CONTEXT}<gaap:Assets contextRef="c" unitRef="u" decimals="0">1</gaap:Assets>
  <gaap:Assets contextRef="c" unitRef="u" decimals="0">1</gaap:Assets>
  <gaap:Name contextRef="c">Acme</gaap:Name></xbrl>"""


@pytest.fixture
def data(tmp_path):
    """A data folder with one plain filing and no inline document."""
    folder = tmp_path / "filings" / "acme"
    folder.mkdir(parents=True)
    (tmp_path / "ixbrl").mkdir()
    (folder / "acme.xml").write_text(INSTANCE, encoding="utf-8")
    return tmp_path


def test_each_reading_is_one_line_about_a_fresh_process(data, monkeypatch):
    """With facts counted as filed, repeated ones too."""
    ours = {"finlora": filing_speed.READERS["finlora"]}
    monkeypatch.setattr(filing_speed, "READERS", ours)
    out = data / "speed.jsonl"
    monkeypatch.setattr(sys, "argv", ["speed", "--data", str(data), "--out", str(out), "--repeats", "1"])
    filing_speed.main()
    (row,) = map(json.loads, out.read_text(encoding="utf-8").splitlines())
    assert (row["reader"], row["filing"], row["facts"], row["numeric"]) == ("finlora", "acme", 3, 2)
    assert row["bytes"] == len(INSTANCE)
    assert row["seconds"] > 0
    assert row["import_cpu_seconds"] > 0
    assert row["peak_bytes"] >= row["import_bytes"] > 2**20


def test_a_reader_that_fails_is_named(data):
    """With what its process said."""
    (data / "filings" / "acme" / "acme.xml").write_text("<xbrl>", encoding="utf-8")
    with pytest.raises(RuntimeError, match=r"(?s)finlora failed on .*acme.*not well-formed"):
        filing_speed.measure("finlora", data / "filings" / "acme")
