"""Checks an answer about a filing against what its prompt shows, not against how it was built."""

import re
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation

from ..filings.filing import Filing
from .filing_sheets import PREFIX
from .formula import formula_value
from .task import Example
from .xbrl_questions import substitute_values, tags_in

_PERIOD = re.compile(r"^((?:From|At) \d{4}-\d\d-\d\d(?: to \d{4}-\d\d-\d\d)?), ")
_FACT = re.compile(r"<us-gaap:(\w+)[^>]*>([^<]*)</>")


@dataclass(frozen=True)
class Asked:
    """A question and what it is about.

    Attributes:
        example: Prompt and answer.
        name: Label or ``us-gaap:`` tag of the line item, or the name of the ratio.
        when: The period as the prompt states it, such as "at 2023-09-30"; empty when it states none.
        formula: Of a ratio, over tags.
    """

    example: Example
    name: str
    when: str = ""
    formula: str = ""


def shown_facts(prompt: str) -> list[tuple[str, str, str]]:
    """Tag (without prefix), value and period of every fact in a prompt; the period is empty if not stated."""
    facts, period = [], ""
    for line in prompt.partition("XML File: ")[2].split("\n"):
        heading = None if line.startswith("<") else _PERIOD.match(line)
        if heading:
            period = heading[1][0].lower() + heading[1][1:]
        facts += [(tag, value, period) for tag, value in _FACT.findall(line)]
    return facts


def answer_fault(task: str, asked: Asked, filing: Filing) -> str | None:
    """Why the answer is not the only right one by what the prompt shows; None if it is."""
    shown = shown_facts(asked.example.context)
    if task in ("xbrl_tags", "xbrl_value"):
        # A tag is asked whatever the period; a value in one period.
        here = [fact for fact in shown if task == "xbrl_tags" or fact[2] == asked.when]
        named = [fact for fact in here if _is_called(fact[0], asked.name, filing)]
        answers = {f"{PREFIX}{tag}" if task == "xbrl_tags" else value for tag, value, _ in named}
        return None if answers == {asked.example.target} else "several answers in the prompt"
    return _formula_fault(task, asked, shown)


def _formula_fault(task: str, asked: Asked, shown: list[tuple[str, str, str]]) -> str | None:
    values: dict[str, set[str]] = {}
    # A balance belongs to the period that ends with it.
    end = asked.when.rpartition(" ")[2]
    for tag, value, when in shown:
        if when == asked.when or when == f"at {end}":
            values.setdefault(tag, set()).add(value)
    tags = tags_in(asked.formula)
    if any(len(values.get(tag, ())) != 1 for tag in tags):
        return "several answers in the prompt"
    single = {tag: next(iter(values[tag])) for tag in tags}
    try:
        result = formula_value(asked.formula, {tag: Decimal(value) for tag, value in single.items()})
    except InvalidOperation:
        return "a value is not a number"
    if result is None:
        return "division by zero"
    calculation = substitute_values(list(single.items()), asked.formula)
    expected = asked.formula if task == "xbrl_formula" else calculation
    wrong = asked.example.target != expected or formula_value(calculation) != result
    return "the calculation does not give the ratio" if wrong else None


def _is_called(tag: str, name: str, filing: Filing) -> bool:
    return name == f"{PREFIX}{tag}" or filing.labels.get(f"{PREFIX}{tag}") == name
