"""Prompts exactly as FinLoRA's data scripts write them, byte for byte, for comparability.

Sources: ``process_xbrl_extract.py`` and ``process_fnxl.py`` of https://github.com/Open-Finance-Lab/FinLoRA.
Their contexts lose period, unit, decimals and dimensions and repeat facts; for anything new use the style
``full`` of `filing_questions`.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

from lxml import etree  # pyright: ignore[reportAttributeAccessIssue]  # lxml has no type stubs

from ..errors import FinLoraError
from ..filings.xml_files import parse_xml
from .task import Example

MAX_TEXT_CHARACTERS = 100
"""What FinLoRA keeps of a fact's text, counted before blanks are dropped."""

FNXL_HEADER = (
    "You are XBRL expert. Choose the best XBRL US GAAP tag for each highlighted entity in the sentences "
    "below. Provide only the US GAAP tags, comma-separated, in the order of the sentences and highlighted "
    "entity. Provide nothing else"
)
FNXL_QUESTIONS_A_PROMPT = 4

_INTRODUCTION = (
    "You are a knowledgeable XBRL assistant. Your task is to analyze the XBRL context and provide an "
    "accurate and very concise answer to the question, The example question can help you to learn the "
    "answer format. DO NOT output xml, code, explanation or create new question. "
)
_ONE_SHOT = {
    "xbrl_tags": (
        "What is the US GAAP XBRL tag for Cash and Cash Equivalents as reported by Example Company Inc for "
        "the Fiscal Year ending in FY 2022",
        "us-gaap:AnExampleTagName",
    ),
    "xbrl_value": (
        "What is the value of Exapmle company's income for the Fiscal year ending in FY 2020?",
        "80000000",
    ),
    "xbrl_formula": (
        "What is the formula for the Gross Profit Margin of Example Inc, formatted with the relevant US GAAP "
        "XBRL tags",
        "us-gaap:ExampleTag / us-gaap:AnotherExampleTag) * 100",
    ),
    "xbrl_formula_calc": (
        "Can you provide the formula for Operating Profit Margin from Example Corp for the Fiscal Year "
        "ending in FY 2022?",
        "(50000000 / 3590000000) * 100",
    ),
}
"""Example question and answer by task, with FinLoRA's slips of the pen."""

INSTRUCTIONS = {
    task: f"{_INTRODUCTION}\nExample question: {question}\nExample answer: {answer}\n"
    for task, (question, answer) in _ONE_SHOT.items()
}
"""FinLoRA's instruction by task; equal to the column ``instruction`` of its tables."""

_NIL = "{http://www.w3.org/2001/XMLSchema-instance}nil"
_ATTRIBUTE_LIKE = re.compile(r'\w+=".*?"')
_ESCAPES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})


@cache
def context_texts(instance: Path) -> dict[str, str]:
    """What FinLoRA shows of each context of an XBRL instance, by context id.

    The us-gaap elements of the context in document order, dimensions or not, repeated facts repeated, without
    text blocks and without blanks; a nil fact appears as ``<us-gaap:Xxmlns:xsi:/>``.

    Raises:
        FinLoraError: The file is missing or not well-formed.
    """
    texts: dict[str, list[str]] = defaultdict(list)
    for element in parse_xml(instance).iter(etree.Element):
        context = element.get("contextRef")
        if context is not None and "us-gaap" in element.tag:
            texts[context].append(_shortened(element))
    return {context: "".join(lines) for context, lines in texts.items()}


def xbrl_prompt(instruction: str, context_text: str, question: str) -> str:
    """FinLoRA's XBRL prompt; ``question`` begins with "Question: " and ends with "Answer:"."""
    return f"{instruction}\nXML File: {context_text}\n{question}"


def fnxl_prompts(questions: Sequence[tuple[str, str, str]], tags: Iterable[str]) -> list[Example]:
    """FinLoRA's FNXL prompts of four questions each under the list of all tags.

    Args:
        questions: Triples of sentence, numeral and tag (without prefix).
        tags: All tags to choose from, in any order.
    """
    head = f"{FNXL_HEADER}\n{', '.join(sorted(set(tags)))}\n".replace("  ", "")
    examples = []
    for start in range(0, len(questions), FNXL_QUESTIONS_A_PROMPT):
        asked = questions[start : start + FNXL_QUESTIONS_A_PROMPT]
        lines = [
            f'What is the best us gaap tag for entity "{numeral}" in sentence: "{sentence}"?\n'
            for sentence, numeral, _ in asked
        ]
        target = ",".join(tag for _, _, tag in asked)
        examples.append(Example(f"{head}{''.join(lines)}\nOutput US GAAP tags:", target))
    return examples


def instance_in(folder: Path) -> Path:
    """The XBRL instance among the files of a filing, told by its root element.

    Raises:
        FinLoraError: There is none.
    """
    for path in sorted(folder.glob("*.xml")):
        if etree.QName(parse_xml(path)).localname == "xbrl":
            return path
    raise FinLoraError(f"{folder} has no XBRL instance (an XML file whose root is <xbrl>); add it.")


def _shortened(element: etree._Element) -> str:
    name = etree.QName(element).localname
    text = (element.text or "")[:MAX_TEXT_CHARACTERS].translate(_ESCAPES)
    if "TextBlock" in name or "TextBlock" in text or "style=" in text:
        return ""
    text = _ATTRIBUTE_LIKE.sub("", text)
    # FinLoRA strips attributes from the serialized element, which leaves this of the two of a nil fact.
    residue = "xmlns:xsi:" if element.get(_NIL) is not None else ""
    body = f"<us-gaap:{name}{residue}>{text}</>" if text else f"<us-gaap:{name}{residue}/>"
    # The element's tail, the line break before the next one, is part of what FinLoRA serializes.
    return (body + (element.tail or "")).replace(" ", "")
