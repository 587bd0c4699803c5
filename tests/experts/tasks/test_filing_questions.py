"""Questions about a filing made in code: answers are in the prompt, and stay the same for a seed."""

import random
import re

import pytest

from finlora.experts.errors import FinLoraError
from finlora.experts.filings.filing import Filing, read_filing
from finlora.experts.filings.linkbases import Calculation
from finlora.experts.filings.model import Context, Duplicate, Fact
from finlora.experts.tasks.filing_asker import FILING_TASKS
from finlora.experts.tasks.filing_context import MAX_FACTS, QuestionSettings, TokenBudget
from finlora.experts.tasks.filing_questions import build_questions, filing_examples
from finlora.experts.tasks.filing_sheets import reporting_periods, single_contexts
from finlora.experts.tasks.formula import canonical_formula

YEAR = Context("year", "1", "2023-01-01", "2023-12-31")
END = Context("end", "1", None, "2023-12-31")
START = Context("start", "1", None, "2022-12-31")
PART = Context("part", "1", None, "2023-12-31", (("srt:Axis", "acme:PartMember"),))
DURATION_TAGS = (
    "Revenues",
    "RevenueFromContractWithCustomerExcludingAssessedTax",
    "NetIncomeLoss",
    "GrossProfit",
)
INSTANT_TAGS = (
    "Assets",
    "AssetsCurrent",
    "InventoryNet",
    "Liabilities",
    "LiabilitiesCurrent",
    "StockholdersEquity",
)
FILLER = tuple(f"Filler{number}" for number in range(20))

INSTANCE = """<xbrl xmlns="http://www.xbrl.org/2003/instance" xmlns:us-gaap="http://fasb.org/us-gaap/2023">
  <context id="year"><entity><identifier scheme="x">1</identifier></entity>
    <period><startDate>2023-01-01</startDate><endDate>2023-12-31</endDate></period></context>
  <context id="end"><entity><identifier scheme="x">1</identifier></entity>
    <period><instant>2023-12-31</instant></period></context>
  <unit id="u"><measure>USD</measure></unit>
  <us-gaap:Revenues contextRef="year" unitRef="u" decimals="0">100</us-gaap:Revenues>
  <us-gaap:NetIncomeLoss contextRef="year" unitRef="u" decimals="0">7</us-gaap:NetIncomeLoss>
  <us-gaap:Assets contextRef="end" unitRef="u" decimals="0">52</us-gaap:Assets>
  <us-gaap:Assets contextRef="end" unitRef="u" decimals="-1">50</us-gaap:Assets>
  <us-gaap:Liabilities contextRef="end" unitRef="u" decimals="0">30</us-gaap:Liabilities>
  <us-gaap:StockholdersEquity contextRef="end" unitRef="u" decimals="0">22</us-gaap:StockholdersEquity>
</xbrl>
"""


def fact(tag: str, value: str | None, context: Context, unit: str | None = "USD") -> Fact:
    """A fact with the usual prefix unless the tag has one."""
    return Fact(tag if ":" in tag else f"us-gaap:{tag}", value, context, unit, "0" if unit else None)


@pytest.fixture
def filing() -> Filing:
    """A small company with a year, two balance sheet dates and everything that must not be shown."""
    chance = random.Random(0)
    facts = [
        fact(tag, str(chance.randrange(1, 10**9)), context)
        for tags, contexts in (((*DURATION_TAGS, *FILLER), [YEAR]), (INSTANT_TAGS, [END, START]))
        for context in contexts
        for tag in tags
    ]
    facts += [
        fact("Assets", "666", PART),
        fact("acme:Own", "666", END),
        fact("Nothing", None, END),
        fact("PolicyTextBlock", "666", YEAR, unit=None),
    ]
    labels = {each.tag: f"Label of {each.tag.partition(':')[2]}" for each in facts}
    labels["us-gaap:Filler1"] = labels["us-gaap:Filler2"]
    labels["us-gaap:Filler4"] = "long " * 30
    del labels["us-gaap:Filler3"]
    return Filing("Acme Corp", tuple(facts), labels)


def shown(context: str) -> dict[str, str]:
    """The facts in a prompt."""
    return dict(re.findall(r"<us-gaap:(\w+)>(.*?)</>", context))


def test_sheets_hold_plain_numbers_of_the_whole_company(filing):
    """No dimensions, extensions, nil facts or text; a period joins its duration and its end."""
    assert [set(sheet.facts) for sheet in single_contexts(filing)] == [
        {*DURATION_TAGS, *FILLER},
        set(INSTANT_TAGS),
        set(INSTANT_TAGS),
    ]
    assert [set(sheet.facts) for sheet in reporting_periods(filing)] == [
        {*DURATION_TAGS, *FILLER, *INSTANT_TAGS}
    ]


@pytest.mark.parametrize("task", FILING_TASKS)
def test_questions_are_short_deterministic_and_distinct(filing, task):
    """The same seed gives the same examples; another seed shows other distractors."""
    examples = filing_examples(task, filing, variants=3)
    assert examples == filing_examples(task, filing, variants=3)
    assert [e.context for e in examples] != [
        e.context for e in filing_examples(task, filing, seed=1, variants=3)
    ]
    assert len({example.context for example in examples}) == len(examples)
    assert len(examples) > len(filing_examples(task, filing))
    for example in examples:
        assert 1 <= len(shown(example.context)) <= MAX_FACTS
        assert "666" not in shown(example.context).values()
        assert example.group.startswith("Acme Corp: ")


def test_tag_questions_have_one_right_answer_in_the_prompt(filing):
    """What has no label, a long one or that of another tag is not asked, and counted once."""
    built = build_questions("xbrl_tags", filing, variants=5)
    assert len({example.target for example in built.examples}) == 4 + 16 + 6
    for example in built.examples:
        assert example.target.removeprefix("us-gaap:") in shown(example.context)
    assert built.dropped == {
        "no label in the linkbase": 1,
        "label longer than 120 characters": 1,
        "label shared with another tag": 2,
    }


def test_value_questions_ask_by_label_and_by_tag(filing):
    """Either way the answer is the value of the asked fact in this prompt."""
    by_tag = 0
    examples = filing_examples("xbrl_value", filing, variants=4)
    for example in examples:
        asked = re.search(r"value of (.+) of Acme Corp", example.context)
        assert asked is not None
        by_tag += asked[1].startswith("us-gaap:")
        tag = asked[1].removeprefix("us-gaap:").removeprefix("Label of ")
        assert example.target == shown(example.context)[tag]
    assert 0.3 < by_tag / len(examples) < 0.7


def test_formulas_use_shown_facts_and_only_one_tag_a_line_item(filing):
    """The second revenue tag would make the question ambiguous, so it is not shown with the first."""
    for formula, calculation in zip(
        filing_examples("xbrl_formula", filing), filing_examples("xbrl_formula_calc", filing), strict=True
    ):
        tags = re.findall(r"us-gaap:(\w+)", formula.target)
        assert set(tags) <= shown(formula.context).keys()
        if "Revenues" in tags:
            assert "RevenueFromContractWithCustomerExcludingAssessedTax" not in shown(formula.context)
        facts = reporting_periods(filing)[0].facts
        numbers = re.sub(r"us-gaap:(\w+)", lambda match, facts=facts: facts[match[1]].value, formula.target)
        assert calculation.target == numbers
        assert canonical_formula(calculation.target) is not None
        assert set(tags) <= shown(calculation.context).keys()


def test_only_questions_whose_facts_are_there():
    """A filing without revenue has no margins, and one without facts has no questions."""
    balance = Filing("Acme", tuple(fact(tag, "5", END) for tag in INSTANT_TAGS))
    assert filing_examples("xbrl_formula", balance) == []
    year = Filing("Acme", (*balance.facts, fact("ProfitLoss", "7", YEAR)))
    names = {example.group.removeprefix("Acme: ") for example in filing_examples("xbrl_formula", year)}
    assert {"Return on Assets", "Current Ratio", "Equity Multiplier"} <= names
    assert not names & {"Net Profit Margin", "Asset Turnover"}


def test_values_in_two_units_are_neither_asked_nor_shown(filing):
    """Assets in dollars and euros have no one value; the same fact in two contexts of one period has."""
    again = Context("end-2", "1", None, "2023-12-31")
    euros = fact("Assets", "9", END, unit="EUR")
    same = fact("Liabilities", next(f.value for f in filing.facts if f.tag.endswith(":Liabilities")), again)
    filing = Filing(filing.company, (*filing.facts, euros, same), filing.labels)
    built = build_questions("xbrl_value", filing)
    assert built.dropped["several values in the period"] == 1
    year_end = [example for example in built.examples if "<us-gaap:Liabilities>" in example.context]
    assert year_end
    formulas = build_questions("xbrl_formula", filing)
    assert formulas.dropped["several values in the period"] >= 3
    assert not any("us-gaap:Assets " in example.target for example in formulas.examples)


def test_a_value_that_was_reported_twice_beyond_rounding_is_not_asked(filing):
    """Exact in a table and rounded in prose is one value; two different amounts are none."""
    kept = next(one for one in filing.facts if one.tag == "us-gaap:Assets" and one.context == END)
    asked = {}
    for name, other in (("rounded", kept.value), ("other", str(int(kept.value) + 9))):
        duplicate = Duplicate(kept, fact("Assets", other, END))
        again = Filing(filing.company, filing.facts, filing.labels, duplicates=(duplicate,))
        asked[name] = {example.target for example in build_questions("xbrl_value", again).examples}
    assert asked["rounded"] - asked["other"] == {kept.value}


def test_the_full_style_asks_by_period_and_shows_the_item_of_other_periods(filing):
    """Goodwill at one date among Goodwill at others has one answer."""
    settings = QuestionSettings(style="full")
    for example in filing_examples("xbrl_value", filing, settings=settings):
        if re.search("(Label of |us-gaap:)Assets of", example.context):
            assert re.search(r" at 202[23]-12-31\?\n", example.context)
            assert example.context.count("<us-gaap:Assets>") == 2
            break
    else:
        pytest.fail("Assets were not asked about")


def test_finloras_style_shows_a_whole_context(tmp_path):
    """All facts of the context; an item with two values, or two tags for a line item, is not asked."""
    (tmp_path / "acme.xml").write_text(INSTANCE)
    filing = read_filing(tmp_path)
    names = {"Assets": "Total assets", "Revenues": "Revenues", "NetIncomeLoss": "Net income"}
    labels = {f"us-gaap:{tag}": label for tag, label in names.items()}
    filing = Filing(filing.company, filing.facts, labels)
    settings = QuestionSettings(style="finlora", instance=tmp_path / "acme.xml")
    built = build_questions("xbrl_value", filing, settings=settings)
    assert [example.target for example in built.examples] == ["100", "7"]
    assert built.dropped == {"several values in the context": 1, "no label in the linkbase": 2}
    assert "<us-gaap:Revenues>100</>\n<us-gaap:NetIncomeLoss>7</>\n\nQuestion: " in built.examples[0].context
    assert built.examples[0].context.endswith(" \nAnswer:")
    calculations = build_questions("xbrl_formula_calc", filing, settings=settings)
    assert [example.target for example in calculations.examples] == ["(7 / 100) * 100", "30 / 22"]
    assert calculations.dropped["several values in the context"] == 2
    short = QuestionSettings("finlora", budget=TokenBudget(99, len), instance=tmp_path / "acme.xml")
    assert build_questions("xbrl_tags", filing, settings=short).dropped["longer than the token budget"] == 3
    with pytest.raises(FinLoraError, match="quotes the XBRL instance"):
        build_questions("xbrl_tags", filing, settings=QuestionSettings("finlora"))


def test_the_calculation_linkbase_has_a_say():
    """A total that its parts do not add up to, and an inventory that is not current, are not asked about."""
    facts = (
        *(fact(tag, "5", END) for tag in INSTANT_TAGS),
        fact("AccountsPayableCurrent", "3", END),
        fact("CashAndCashEquivalentsAtCarryingValue", "5", END),
        fact("ProfitLoss", "7", YEAR),
    )
    arcs = (
        Calculation("role", "us-gaap:LiabilitiesCurrent", "us-gaap:AccountsPayableCurrent", 1.0),
        Calculation("role", "us-gaap:AssetsCurrent", "us-gaap:CashAndCashEquivalentsAtCarryingValue", 1.0),
    )
    free = build_questions("xbrl_formula", Filing("Acme", facts))
    assert not free.dropped
    bound = build_questions("xbrl_formula", Filing("Acme", facts, {}, arcs))
    names = [{example.group for example in built.examples} for built in (free, bound)]
    assert names[0] - names[1] == {"Acme: Current Ratio", "Acme: Quick Ratio", "Acme: Cash Ratio"}
    assert bound.dropped == {"a total is not the sum of its parts": 3}
    arcs = (arcs[1], Calculation("role", "us-gaap:LiabilitiesCurrent", "us-gaap:Absent", 1.0))
    bound = build_questions("xbrl_formula", Filing("Acme", facts, {}, arcs))
    assert bound.dropped == {"an item is not part of its total in the calculation linkbase": 1}


def test_a_ratio_that_divides_by_zero_is_dropped():
    facts = (fact("Assets", "5", END), fact("StockholdersEquity", "0", END), fact("ProfitLoss", "7", YEAR))
    built = build_questions("xbrl_formula_calc", Filing("Acme", facts))
    assert [example.target for example in built.examples] == ["(7 / 5) * 100"]
    assert built.dropped == {"division by zero": 2}


def test_other_tasks_are_refused(filing):
    """The message names the tasks that are asked about filings."""
    with pytest.raises(FinLoraError, match="xbrl_formula_calc"):
        filing_examples("fpb", filing)
