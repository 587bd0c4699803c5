"""Questions from the filings of the data folder, each answer verified on the files themselves.

Nothing of the readers of filings is used here: instances, linkbases and documents are read again with the
standard library, and the answers compared with what stands there.
"""

import html
import re
import xml.etree.ElementTree as ElementTree
from collections import defaultdict
from fractions import Fraction
from functools import cache
from pathlib import Path

import pytest

from finlora.experts.errors import FinLoraError
from finlora.experts.filings.filing import read_filing
from finlora.experts.filings.inline_sentences import tagged_sentences
from finlora.experts.tasks import Example
from finlora.experts.tasks.data_folder import data_folder
from finlora.experts.tasks.filing_yield import SETTINGS, built_of_document, built_of_filing, yield_report

try:
    DATA: Path | None = data_folder()
except FinLoraError:
    DATA = None
pytestmark = pytest.mark.skipif(DATA is None, reason="needs the filings of the data folder (FINLORA_DATA)")

FILINGS = sorted((DATA / "filings").iterdir()) if DATA else []
DOCUMENTS = sorted((DATA / "ixbrl").iterdir()) if DATA else []
REPORT = Path(__file__).parents[3] / "docs/results/filings/yield.md"
LINK = "{http://www.xbrl.org/2003/linkbase}"
XLINK = "{http://www.w3.org/1999/xlink}"
XBRLI = "{http://www.xbrl.org/2003/instance}"
QUESTION = re.compile(
    r"\nQuestion: What is the (?:US GAAP XBRL tag for |value of |formula for the |)(.*) of .* (at|from) "
    r"(\d{4}-\d\d-\d\d)(?: to (\S+))?\?\n"
)


class Reread:
    """An instance and its labels, read with the standard library."""

    def __init__(self, folder: Path) -> None:
        roots = [ElementTree.parse(path).getroot() for path in folder.glob("*.xml")]
        instance = next(root for root in roots if root.tag == f"{XBRLI}xbrl")
        periods = {}
        for context in instance.iter(f"{XBRLI}context"):
            texts = [(node.text or "").strip() for node in context.find(f"{XBRLI}period") or ()]
            whole = not any("xbrldi" in str(node.tag) for node in context.iter())
            periods[context.get("id")] = (None, *texts)[-2:] if whole else None
        self.values: dict[tuple, list[tuple[float, str]]] = defaultdict(list)
        for node in instance:
            period = periods.get(node.get("contextRef"))
            if period and "/us-gaap/" in node.tag and node.get("unitRef") and (node.text or "").strip():
                decimals = node.get("decimals", "INF")
                precision = float("inf") if decimals == "INF" else float(decimals)
                self.values[node.tag.partition("}")[2], period].append((precision, node.text.strip()))
        self.pairs = {(tag, text) for (tag, _), texts in self.values.items() for _, text in texts}
        self.labels, self.definitions = (
            self._texts(roots, role) for role in ("role/label", "role/documentation")
        )

    @staticmethod
    def _texts(roots: list[ElementTree.Element], role: str) -> dict[str, str]:
        texts = {}
        for link in (link for root in roots for link in root.iter(f"{LINK}labelLink")):
            hrefs = {node.get(f"{XLINK}label"): node.get(f"{XLINK}href") for node in link.iter(f"{LINK}loc")}
            said = {
                node.get(f"{XLINK}label"): " ".join((node.text or "").split())
                for node in link.iter(f"{LINK}label")
                if node.get(f"{XLINK}role", "").endswith(role)
            }
            for arc in link.iter(f"{LINK}labelArc"):
                source, target = arc.get(f"{XLINK}from"), arc.get(f"{XLINK}to")
                if target in said:
                    texts[hrefs[source].rpartition("#")[2].replace("_", ":", 1)] = said[target]
        return texts

    def value(self, tag: str, period: tuple) -> str:
        """The most precise text of a fact of the company as a whole."""
        return max(self.values[tag, period], key=lambda pair: pair[0])[1]

    def tags_called(self, name: str) -> set[str]:
        """Us-gaap tags, without prefix, of that name or label."""
        tags = {tag for tag, label in self.labels.items() if label == name} | {name}
        return {tag.removeprefix("us-gaap:") for tag in tags if tag.startswith("us-gaap:")}


@cache
def reread(folder: Path) -> Reread:
    return Reread(folder)


@cache
def built(folder: Path) -> dict:
    return built_of_filing(read_filing(folder))


@cache
def built_of(document: Path) -> dict:
    return built_of_document(tagged_sentences(document))


def asked(example: Example) -> tuple[str, tuple]:
    """Name and period in a question."""
    match = QUESTION.search(example.context)
    assert match, example.context[-300:]
    name, kind, first, last = match.groups()
    return name, ((None, first) if kind == "at" else (first, last))


def shown(example: Example) -> set[tuple[str, str]]:
    return set(re.findall(r"<us-gaap:(\w+)[^>]*>(.*?)</>", example.context))


def result(formula: str) -> Fraction:
    """Exact value of a formula of numbers, by Python's own parser."""
    assert re.fullmatch(r"[-\d.+*/() ]+", formula)
    return eval(
        re.sub(r"\d+(?:\.\d+)?", lambda match: f"Fraction('{match[0]}')", formula), {"Fraction": Fraction}
    )


@pytest.mark.parametrize("folder", FILINGS, ids=lambda folder: folder.name)
def test_tags_and_values_stand_in_the_instance(folder: Path) -> None:
    """One tag of that name is shown, with the value that the instance has for the period."""
    files = reread(folder)
    for example in built(folder)["xbrl_tags"].examples:
        name, _ = asked(example)
        called = files.tags_called(name)
        assert {f"us-gaap:{tag}" for tag, _ in shown(example) if tag in called} == {example.target}
    for example in built(folder)["xbrl_value"].examples:
        name, period = asked(example)
        [tag] = {tag for tag, _ in shown(example)} & files.tags_called(name)
        assert example.target == files.value(tag, period)
        assert (tag, example.target) in shown(example)
        assert shown(example) <= files.pairs


@pytest.mark.parametrize("folder", FILINGS, ids=lambda folder: folder.name)
def test_formulas_come_to_what_the_facts_of_the_instance_give(folder: Path) -> None:
    """The tags of the formula, with values from the instance, give the number that the calculation gives."""
    files = reread(folder)
    formulas = {asked(example): example for example in built(folder)["xbrl_formula"].examples}
    calculations = {asked(example): example for example in built(folder)["xbrl_formula_calc"].examples}
    assert formulas.keys() == calculations.keys()
    for (name, period), example in formulas.items():
        numbers = {}
        for tag in set(re.findall(r"us-gaap:(\w+)", example.target)):
            in_period = (tag, period) in files.values
            numbers[tag] = files.value(tag, period if in_period else (None, period[1]))
            assert (tag, numbers[tag]) in shown(example)
            assert (tag, numbers[tag]) in shown(calculations[name, period])
        formula = re.sub(r"us-gaap:(\w+)", lambda match, n=numbers: f"({n[match[1]]})", example.target)
        assert result(formula) == result(calculations[name, period].target)


@pytest.mark.parametrize("folder", FILINGS, ids=lambda folder: folder.name)
def test_terms_are_defined_in_the_linkbase(folder: Path) -> None:
    files = reread(folder)
    definitions = {
        (files.labels.get(tag, "").partition(" [")[0], text.partition(" [")[0])
        for tag, text in files.definitions.items()
    }
    for example in built(folder)["xbrl_term"].examples:
        assert (example.group.partition(" [")[0], example.target.partition(" [")[0]) in definitions


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_sentences_and_tags_stand_in_the_document(document: Path) -> None:
    """The numeral has the tag in the markup, and the sentence is text of the document."""
    markup = document.read_text(encoding="utf-8")
    tagged = {
        (name, re.sub(r"<[^>]*>|\s", "", html.unescape(content)))
        for name, content in re.findall(
            r'<ix:nonFraction\b[^>]*\bname="us-gaap:(\w+)"[^>]*>(.*?)</ix:nonFraction>', markup, re.DOTALL
        )
    }
    text = re.sub(r"\s", "", html.unescape(re.sub(r"<[^>]*>", "", markup)))
    for questions in built_of(document).values():
        for example in questions.examples:
            numeral, sentence = re.findall(r'entity "(.*?)" in sentence: "(.*)"\?\n', example.context)[0]
            assert (example.target, re.sub(r"\s", "", numeral)) in tagged
            assert re.sub(r"\s", "", sentence) in text
            assert numeral in sentence


def test_there_are_two_hundred_questions_a_task_and_the_table_is_true() -> None:
    """The committed table is what the files give; it is written by this test's own function."""
    report = yield_report(
        {folder.name: built(folder) for folder in FILINGS},
        {document.stem: built_of(document) for document in DOCUMENTS},
    )
    totals = [int(total.replace(",", "")) for total in re.findall(r"\| built \| ([\d,]+) \|", report)]
    assert len(totals) == 7
    assert min(totals) >= 200
    assert SETTINGS.style == "full"
    assert REPORT.read_text(encoding="utf-8") == report
