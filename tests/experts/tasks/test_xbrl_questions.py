"""The wording of questions, and ratios over facts."""

import pytest

from finlora.experts.filings.ratios import ALL_RATIOS, LINE_ITEMS, PARTS, RATIOS
from finlora.experts.tasks.scorers import formula_score
from finlora.experts.tasks.xbrl_questions import (
    HEADLINE_QUESTIONS,
    formula_calc_question,
    formula_question,
    headline_question,
    sentence_tag_question,
    sentiment_question,
    substitute_values,
    tag_question,
    term_question,
    value_question,
    xml_lines,
)

FACTS = [("AssetsCurrent", "300"), ("Assets", "1000"), ("LiabilitiesCurrent", "-150")]


def test_facts_are_shown_in_finloras_form():
    """One element a line, in the order given, with the short closing tag."""
    assert xml_lines(FACTS[:2]) == "<us-gaap:AssetsCurrent>300</>\n<us-gaap:Assets>1000</>"


def test_questions_about_facts_name_the_task_before_the_facts():
    """A router that reads from the left knows the task at the first fact."""
    formula = "us-gaap:AssetsCurrent / us-gaap:LiabilitiesCurrent"
    shown = xml_lines(FACTS)
    examples = {
        "us-gaap:Assets": tag_question(shown, "Total assets", "Assets", "Acme"),
        "1000": value_question(shown, "us-gaap:Assets", "1000", "Acme"),
        formula: formula_question(shown, "Current Ratio", formula, "Acme"),
        "300 / -150": formula_calc_question(shown, "Current Ratio", "300 / -150", "Acme"),
    }
    instructions = {example.context.partition("\n")[0] for example in examples.values()}
    assert len(instructions) == 4
    for target, example in examples.items():
        assert example.target == target
        assert example.group == "Acme"
        assert shown in example.context
        assert example.context.endswith("of Acme?\nAnswer:")
    dated = tag_question(shown, "Total assets", "Assets", "Acme", when=" at 2023-12-31", group="g")
    assert dated.context.endswith("of Acme at 2023-12-31?\nAnswer:")
    assert dated.group == "g"


def test_substitution_takes_whole_tags():
    """Assets is not replaced inside AssetsCurrent, and a missing tag is an error."""
    text = substitute_values(FACTS, "(us-gaap:Assets - us-gaap:AssetsCurrent) / us-gaap:Assets")
    assert text == "(1000 - 300) / 1000"
    with pytest.raises(KeyError):
        substitute_values(FACTS, "us-gaap:Goodwill / us-gaap:Assets")


def test_finloras_own_wordings_are_kept():
    """Adapters trained on FinLoRA's files must know these prompts."""
    sentiment = sentiment_question("tweet", "up it goes", "positive")
    assert sentiment.context == (
        "Instruction: What is the sentiment of this tweet? "
        "Please choose an answer from {negative/neutral/positive}.\nInput: up it goes\nAnswer:"
    )
    headline = headline_question("gold rises", HEADLINE_QUESTIONS["up"], True)
    assert headline.context == (
        "Instruction: Does the news headline talk about price going up? "
        "Please choose an answer from {Yes/No}.\nInput: gold rises\nAnswer:"
    )
    assert headline.target == "Yes"
    assert headline_question("gold rises", HEADLINE_QUESTIONS["down"], False).target == "No"
    term = term_question("Goodwill", "What remains.")
    assert term.context == "Explain this XBRL term briefly in one sentence: Goodwill. Answer:"
    numeral = sentence_tag_question("It paid $ 7 million .", "7", "us-gaap:PaymentsForRent")
    assert numeral.context.startswith('What is the best us gaap tag for entity "7" in sentence: "It paid')
    assert numeral.target == "PaymentsForRent"


def test_every_ratio_is_a_formula_over_its_preferred_tags():
    """With all tags at hand the first of each line item is used, and values can be put in."""
    every_tag = [tag for tags in LINE_ITEMS.values() for tag in tags]
    facts = [(tag, str(number + 1)) for number, tag in enumerate(every_tag)]
    assert len({ratio.name for ratio in ALL_RATIOS}) == len(ALL_RATIOS) >= 50
    assert len(set(every_tag)) == len(every_tag)
    assert ALL_RATIOS[: len(RATIOS)] == RATIOS
    assert {*PARTS, *PARTS.values()} <= LINE_ITEMS.keys()
    for ratio in ALL_RATIOS:
        formula = ratio.with_tags(every_tag)
        assert formula is not None
        assert all(f"us-gaap:{LINE_ITEMS[item][0]}" in formula for item in ratio.line_items)
        assert formula_score(substitute_values(facts, formula), formula) == 0.0


def test_ratios_fall_back_on_other_tags_or_are_not_asked():
    """A company without Revenues may have SalesRevenueNet; one with neither has no margin."""
    margin = next(ratio for ratio in RATIOS if ratio.name == "Net Profit Margin")
    assert margin.with_tags({"ProfitLoss", "SalesRevenueNet"}) == (
        "(us-gaap:ProfitLoss / us-gaap:SalesRevenueNet) * 100"
    )
    assert margin.with_tags({"ProfitLoss"}) is None
    assert {"Revenues", "SalesRevenueNet", "NetIncomeLoss"} <= margin.competing_tags
