"""The wording of every question: pure functions from facts, sentences and headlines to examples.

Invented companies and real filings are asked in the same words, so an expert trained on one can be tested on
the other. The instruction comes first and is short: a router must know the task before it reads the facts.
Where the data is FinLoRA's (https://github.com/Open-Finance-Lab/FinLoRA) the wording is FinLoRA's.
"""

import re
from collections.abc import Sequence

from .task import Example

Fact = tuple[str, str]
"""A us-gaap tag without prefix, and its value as written in the filing."""

HEADLINE_QUESTIONS = {
    "up": "Does the news headline talk about price going up?",
    "constant": "Does the news headline talk about price staying constant?",
    "down": "Does the news headline talk about price going down?",
    "comparison": "Does the news headline compare gold with any other asset?",
}
SENTIMENTS = ("negative", "neutral", "positive")

_TAG_IN_FORMULA = re.compile(r"us-gaap:([A-Za-z0-9]+)")


def xml_lines(facts: Sequence[Fact]) -> str:
    """Facts in FinLoRA's shortened XML, one a line: ``<us-gaap:Goodwill>3040400000</>``."""
    return "\n".join(f"<us-gaap:{tag}>{value}</>" for tag, value in facts)


def substitute_values(facts: Sequence[Fact], formula: str) -> str:
    """Replaces each ``us-gaap:`` tag of a formula by the value of that fact.

    Raises:
        KeyError: The formula names a tag that is not among the facts.
    """
    values = dict(facts)
    return _TAG_IN_FORMULA.sub(lambda match: values[match[1]], formula)


def tags_in(formula: str) -> list[str]:
    """The tags (without prefix) of a formula, in order."""
    return _TAG_IN_FORMULA.findall(formula)


def tag_question(
    shown: str, label: str, tag: str, company: str, *, when: str = "", group: str | None = None
) -> Example:
    """Asks for the tag of a labelled line item; the answer carries the ``us-gaap:`` prefix.

    Args:
        shown: The facts, as ``xml_lines`` or ``described_facts`` write them.
        label: Name of the line item.
        tag: Its tag, without prefix.
        company: Whose facts they are.
        when: What the question says about the period, such as " at 2023-09-30".
        group: Of the example; the company by default.
    """
    question = f"What is the US GAAP XBRL tag for {label} of {company}{when}?"
    instruction = "XBRL tag extraction. Answer with the US GAAP tag only."
    return _facts_question(instruction, shown, question, f"us-gaap:{tag}", group or company)


def value_question(
    shown: str, asked_name: str, value: str, company: str, *, when: str = "", group: str | None = None
) -> Example:
    """Asks for the value of a fact by its label ("Goodwill") or by its tag ("us-gaap:Goodwill")."""
    question = f"What is the value of {asked_name} of {company}{when}?"
    instruction = "XBRL value extraction. Answer with the number only."
    return _facts_question(instruction, shown, question, value, group or company)


def formula_question(
    shown: str, ratio_name: str, formula: str, company: str, *, when: str = "", group: str | None = None
) -> Example:
    """Asks for a ratio as a formula of tags, such as ``us-gaap:Assets / us-gaap:StockholdersEquity``."""
    question = f"What is the formula for the {ratio_name} of {company}{when}?"
    instruction = "XBRL formula construction. Answer with a formula of US GAAP tags only."
    return _facts_question(instruction, shown, question, formula, group or company)


def formula_calc_question(
    shown: str, ratio_name: str, calculation: str, company: str, *, when: str = "", group: str | None = None
) -> Example:
    """Asks for a ratio's formula with the values of the facts in the place of tags, such as ``7 / 20``."""
    question = f"What is the {ratio_name} of {company}{when}?"
    instruction = "XBRL formula calculation. Answer with a formula substituted with values only."
    return _facts_question(instruction, shown, question, calculation, group or company)


def sentence_tag_question(sentence: str, numeral: str, tag: str, *, group: str | None = None) -> Example:
    """Asks for the tag of one numeral in a sentence; the answer has no prefix, as in FiNER and FNXL."""
    question = f'What is the best us gaap tag for entity "{numeral}" in sentence: "{sentence}"?'
    return Example(f"{question}\nOutput US GAAP tag:", tag.removeprefix("us-gaap:"), group or sentence)


def term_question(term: str, definition: str) -> Example:
    """Asks what an XBRL term means."""
    return Example(f"Explain this XBRL term briefly in one sentence: {term}. Answer:", definition, term)


def sentiment_question(kind: str, text: str, label: str) -> Example:
    """Asks for the sentiment of a ``kind`` of text, "news" or "tweet"."""
    options = "/".join(SENTIMENTS)
    instruction = f"What is the sentiment of this {kind}? Please choose an answer from {{{options}}}."
    return _instruction_question(instruction, text, label)


def headline_question(headline: str, question: str, answer: bool) -> Example:
    """Asks one of ``HEADLINE_QUESTIONS`` (the text, not the key) about a headline."""
    instruction = f"{question} Please choose an answer from {{Yes/No}}."
    return _instruction_question(instruction, headline, "Yes" if answer else "No")


def _facts_question(instruction: str, shown: str, question: str, target: str, group: str) -> Example:
    return Example(f"{instruction}\nXML File: {shown}\nQuestion: {question}\nAnswer:", target, group)


def _instruction_question(instruction: str, text: str, target: str) -> Example:
    return Example(f"Instruction: {instruction}\nInput: {text}\nAnswer:", target, text)
