"""Every filing and inline document of the data folder gives what was counted in it by other means."""

from collections import Counter
from decimal import Decimal
from html import unescape
from re import sub

import pytest

from finlora.experts.errors import FinLoraError
from finlora.experts.filings.filing import read_filing
from finlora.experts.filings.inline_sentences import tagged_sentences
from finlora.experts.tasks.data_folder import data_folder

pytestmark = pytest.mark.filterwarnings("ignore:.*comes without")

COUNTS = {
    # facts, numeric, contexts, with dimensions, usual decimals, numeric repeats, conflicts, summation arcs
    "filings/aapl-20230930": (1164, 995, 205, 473, "-6", 91, 2, 215),
    "filings/aapl-20250329": (760, 674, 163, 397, "-6", 60, 0, 106),
    "filings/amzn-20221231": (1457, 1280, 339, 570, "-6", 117, 13, 288),
    "filings/gahc-20240930": (899, 783, 373, 591, "0", 31, 0, 65),
    "filings/gd-20240630": (1184, 1097, 452, 744, "-6", 148, 2, 99),
    "filings/msft-20150930": (1355, 1210, 546, 973, "-6", 0, 0, 147),
    "filings/nflx-20091231": (383, 359, 43, 62, "-3", 0, 0, 83),
    "filings/nflx-20100930": (303, 282, 11, 0, "-3", 0, 0, 70),
    "filings/nflx-20231231": (1086, 955, 230, 352, "-3", 90, 11, 136),
    "filings/tsla-20240630": (1149, 1044, 338, 566, "-6", 90, 0, 121),
}
NUMERIC = {
    "ixbrl/aapl-10k-2024-11-01.html": 963,
    "ixbrl/aapl-10q-2025-03-29.htm": 674,
    "ixbrl/amzn-10k-2025-02-07.html": 1261,
    "ixbrl/hd-10k-2025-03-21.html": 1270,
    "ixbrl/nflx-10k-2025-01-27.html": 1213,
}
SENTENCES = {
    # sentences, numerals in them, sentences with a us-gaap numeral
    "ixbrl/aapl-10k-2024-11-01.html": (42, 90, 33),
    "ixbrl/aapl-10q-2025-03-29.htm": (17, 38, 14),
    # One less than in the count before, which took the one number in the hidden header for a sentence.
    "ixbrl/amzn-10k-2025-02-07.html": (107, 218, 85),
    "ixbrl/hd-10k-2025-03-21.html": (76, 134, 61),
    "ixbrl/nflx-10k-2025-01-27.html": (54, 113, 45),
}


def published(name):
    """A file or folder of the data folder; the test is skipped without it."""
    try:
        path = data_folder() / name
    except FinLoraError as error:
        pytest.skip(str(error))
    if not path.exists():
        pytest.skip(f"{path} is not there")
    return path


def reported(filing):
    """All facts as filed, repeated ones too."""
    return [*filing.facts, *(one.other for one in filing.duplicates)]


@pytest.mark.parametrize("name", COUNTS)
def test_a_plain_filing_gives_what_was_counted(name):
    """Five styles of context ids, taxonomies from 2009 to 2024, one filing without a schema."""
    filing = read_filing(published(name))
    facts = reported(filing)
    numeric = [fact for fact in facts if fact.unit is not None]
    assert (
        len(facts),
        len(numeric),
        len(filing.contexts),
        sum(bool(fact.context.dimensions) for fact in facts),
        Counter(fact.decimals for fact in numeric).most_common(1)[0][0],
        sum(one.other.unit is not None for one in filing.duplicates),
        len(filing.conflicts),
        len(filing.calculations),
    ) == COUNTS[name]
    assert filing.labels
    assert filing.documentation
    assert all(one.kept.precision >= one.other.precision for one in filing.duplicates)


def test_units_tags_and_decimals_of_one_filing():
    """Counted in the instance by hand."""
    filing = read_filing(published("filings/aapl-20230930"))
    facts = reported(filing)
    prefixes = Counter(fact.tag.split(":")[0] for fact in facts)
    assert prefixes == {"us-gaap": 1006, "aapl": 78, "dei": 65, "ecd": 15}
    decimals = Counter(fact.decimals for fact in facts if fact.decimals)
    assert decimals.items() >= {"-6": 820, "-8": 55, "-3": 45, "2": 40, "INF": 20, "4": 8}.items()
    assert sum(fact.value is None for fact in facts) == 3
    assert {"USD", "shares", "USD/shares", "pure", "EUR", "Customer"} <= {fact.unit for fact in facts}
    dimensions = Counter(len(context.dimensions) for context in filing.contexts)
    assert [dimensions[count] for count in range(4)] == [10, 137, 36, 16]
    assert sum(context.start is None for context in filing.contexts) == 105


def test_old_taxonomies_have_their_usual_prefixes():
    """Those of 2009 came from xbrl.us."""
    for name in ("filings/nflx-20091231", "filings/msft-20150930"):
        prefixes = {fact.tag.split(":")[0] for fact in read_filing(published(name)).facts}
        assert {"us-gaap", "dei"} <= prefixes <= {"us-gaap", "dei", "invest", "nflx", "msft"}


@pytest.mark.parametrize("name", NUMERIC)
def test_an_inline_document_gives_all_its_numbers(name):
    """Every one of them is a plain number after transformation, scale and sign."""
    facts = [fact for fact in reported(read_filing(published(name))) if fact.unit is not None]
    assert len(facts) == NUMERIC[name]
    assert all(Decimal(fact.value).is_finite() for fact in facts if fact.value is not None)
    assert any(fact.value.startswith("-") for fact in facts if fact.value)


def test_inline_document_and_plain_instance_of_one_filing_agree():
    """The SEC made the instance from the document, so all 760 facts must be the same."""
    plain = reported(read_filing(published("filings/aapl-20250329")))
    inline = reported(read_filing(published("ixbrl/aapl-10q-2025-03-29.htm")))
    assert Counter(map(comparable, plain)) == Counter(map(comparable, inline))
    assert sum(fact.unit is not None for fact in inline) == 674
    assert len(inline) == 760


def comparable(fact):
    """All that a fact says, without the name of its context and the layout of text blocks."""
    value = fact.value
    if value is not None:
        # The SEC writes 6.0 billion as 6000000000.0.
        value = Decimal(value) if fact.unit else sub(r"\s+", "", unescape(sub("<[^>]+>", "", value)))
    return fact.tag, fact.context.key, fact.unit, value, fact.decimals


@pytest.mark.parametrize("name", SENTENCES)
def test_sentences_with_tagged_numerals_are_as_many_as_counted(name):
    """And each numeral stands where its span says."""
    sentences = tagged_sentences(published(name))
    numerals = [one for sentence in sentences for one in sentence.numerals]
    assert (
        len(sentences),
        len(numerals),
        sum(any(one.tag.startswith("us-gaap:") for one in sentence.numerals) for sentence in sentences),
    ) == SENTENCES[name]
    assert all(
        sentence.text[one.start : one.end] == one.text for sentence in sentences for one in sentence.numerals
    )
