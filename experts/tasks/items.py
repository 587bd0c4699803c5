"""Which rows of FinLoRA's files ask for the same thing: the group of a row, read from its prompt.

Intervals draw groups, so that 17 wordings of one question count as one observation.
"""

import hashlib
import re
from collections.abc import Callable
from dataclasses import replace

from .sampling import mask_numbers
from .task import Example

_INPUT = re.compile(r"\nInput: (.*)\nAnswer:\s*$", re.DOTALL)
_ENTITY = re.compile(r"Instruction: .*?'(.*)'[^\n]*\nOptions:")
_TERM = re.compile(r"in one sentence: (.*)\. Answer:", re.DOTALL)
_QUESTION = re.compile(r"\nQuestion: (.*?)\s*\nAnswer:\s*$", re.DOTALL)
_SENTENCES = re.compile(r' in sentence: "(.*?)\??"\??$', re.MULTILINE)
_DOCUMENT = re.compile(r"Document Pages Context:\n(.*)\n\s*Answer:", re.DOTALL)


def with_item(task: str, example: Example) -> Example:
    """The example with the item of its task as group, if it has no group yet and its prompt is FinLoRA's."""
    if example.group or task not in _ITEMS:
        return example
    return replace(example, group=_ITEMS[task](example) or "")


def input_text(example: Example) -> str:
    """The text that a sentiment, headline or entity question is about; empty in another kind of prompt."""
    match = _INPUT.search(example.context)
    return match[1] if match else ""


def masked_question(example: Example) -> str:
    """The question of an XBRL prompt without its numbers: the same for another year of the same company."""
    match = _QUESTION.search(example.context)
    return mask_numbers(match[1]) if match else ""


def _entity(example: Example) -> str:
    match = _ENTITY.match(example.context)
    return f"{match[1]}: {input_text(example)}" if match else ""


def _term(example: Example) -> str:
    match = _TERM.search(example.context)
    return match[1] if match else ""


def _sentences(example: Example) -> str:
    return "\n".join(_SENTENCES.findall(example.context))


def _pages(example: Example) -> str:
    match = _DOCUMENT.search(example.context)
    return _digest(match[1]) if match else ""


def _facts_and_answer(example: Example) -> str:
    """Paraphrases show the same facts and have the same answer."""
    facts, _, question = example.context.rpartition("\nQuestion: ")
    return f"{_digest(facts)}: {example.target}" if question else ""


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


_ITEMS: dict[str, Callable[[Example], str]] = {
    **dict.fromkeys(("fpb", "fiqa", "tfns", "nwgi", "headline"), input_text),
    **dict.fromkeys(("finer", "fnxl"), _sentences),
    **dict.fromkeys(("xbrl_tags", "xbrl_value", "xbrl_formula", "xbrl_formula_calc"), _facts_and_answer),
    "ner": _entity,
    "xbrl_term": _term,
    "financebench": _pages,
}
