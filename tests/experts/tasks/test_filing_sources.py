"""Examples from one filing that a user has: which form serves which task, and what was left out is said."""

import pytest

from finlora.experts.errors import FinLoraError
from finlora.experts.tasks.data_folder import data_file, data_folder
from finlora.experts.tasks.filing_sources import build_from_filing
from finlora.experts.tasks.sources import build_task


@pytest.fixture
def filing(data):
    """Folder of a real filing."""
    return data_file(data_folder(), "filings/nflx-20100930")


@pytest.mark.parametrize("style", ["plain", "full"])
def test_a_folder_serves_the_extraction_tasks(filing, style) -> None:
    examples, notes = build_from_filing("xbrl_value", filing, style)
    assert len(examples) > 50
    assert all(note.startswith("left out, ") for note in notes)
    assert ("decimals" in examples[0].context) == (style == "full")


def test_finloras_style_needs_the_instance(filing) -> None:
    with pytest.raises(FinLoraError, match=r"give the \.xml instance instead"):
        build_from_filing("xbrl_tags", filing, "finlora")
    instance = filing / "nflx-20100930.xml"
    examples = build_task("xbrl_tags", instance, style="finlora")
    assert all("XML File: <us-gaap:" in example.context for example in examples)


def test_terms_come_from_the_linkbases(filing) -> None:
    examples, _ = build_from_filing("xbrl_term", data_file(data_folder(), "filings/aapl-20230930"))
    assert all(example.context.startswith("Explain this XBRL term") for example in examples)


def test_sentences_come_from_the_document(filing) -> None:
    document = data_file(data_folder(), "ixbrl/aapl-10q-2025-03-29.htm")
    told: list[str] = []
    examples = build_task("finer", document, report=told.append)
    assert examples
    assert any(note.startswith("left out, ") for note in told)
    with pytest.raises(FinLoraError, match="asks about sentences"):
        build_from_filing("finer", filing)
