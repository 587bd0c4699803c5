"""Arelle, the processor that regulators use, reads the same numbers from inline documents.

It is the independent check of transformation, scale and sign. It lacks the SEC's transformations.
"""

from collections import Counter
from decimal import Decimal

import pytest

from finlora.experts.errors import FinLoraError
from finlora.experts.filings.filing import read_filing
from finlora.experts.tasks.data_folder import data_folder

UNKNOWN_FORMAT = "(ixTransformValueError)"
DOCUMENTS = ("aapl-10k-2024-11-01.html", "hd-10k-2025-03-21.html")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", DOCUMENTS)
def test_arelle_reads_the_same_numbers(name):
    """Offline and without the us-gaap schemas, which inline documents do not need for this."""
    controllers = pytest.importorskip("arelle.Cntlr", reason="Arelle is not installed: finlora[xbrl]")
    try:
        path = data_folder() / "ixbrl" / name
    except FinLoraError as error:
        pytest.skip(str(error))
    controller = controllers.Cntlr(logFileName="logToBuffer")
    controller.webCache.workOffline = True
    model = controller.modelManager.load(str(path))
    theirs = Counter(
        (fact.qname.localName, fact.contextID, fact.decimals, _number(fact.value))
        for fact in model.facts
        if fact.unitID and fact.value != UNKNOWN_FORMAT
    )
    filing = read_filing(path)
    ours = Counter(
        (fact.tag.partition(":")[2], fact.context.id, fact.decimals, _number(fact.value or ""))
        for fact in [*filing.facts, *(one.other for one in filing.duplicates)]
        if fact.unit is not None
    )
    assert not theirs - ours
    assert sum(ours.values()) - sum(theirs.values()) == sum(
        fact.value == UNKNOWN_FORMAT for fact in model.facts if fact.unitID
    )


def _number(text):
    return Decimal(text) if text else None
