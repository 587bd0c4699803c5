"""The embedded suite: eight tasks over invented companies, so that everything runs with no download.

Questions over facts come from the builders that read real filings (`filing_questions`), through the same
`Filing`. The splits share no company, no fact, no sentence and no explained term; the cluster of an example
is its company, its sentence or its term.
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache

from ..filings.concepts import CONCEPTS
from ..filings.invented import SPLITS, as_filing, company_name, invent_company
from ..filings.prose import headline, news, note
from .filing_questions import FILING_TASKS, filing_examples
from .task import Example
from .xbrl_questions import (
    HEADLINE_QUESTIONS,
    headline_question,
    sentence_tag_question,
    sentiment_question,
    term_question,
)

VERSION = 3
"""Raised when questions are drawn anew: test questions had been seen when settings were chosen."""
SIZES = {"train": 2000, "validation": 80, "test": 200}
"""Examples of one task in each split; explained terms are fewer, because concepts are."""
_QUESTIONS_PER_COMPANY = {"train": 8, "validation": 2, "test": 2}
"""Few where scores are made, because the questions on one company count as one observation in an interval."""
_TERM_SPLIT = {"train": (0, 7), "validation": (7, 8), "test": (8, 10)}
"""Half-open ranges of tenths of the shuffled concepts."""


@cache
def _examples(task: str, split: str) -> tuple[Example, ...]:
    random_state = random.Random(f"embedded {VERSION} {task} {split}")
    if task == "xbrl_term":
        return tuple(_terms(split, random_state))
    builder = _SENTENCE_TASKS.get(task) or _facts_builder(task)
    examples: dict[str, Example] = {}
    while len(examples) < SIZES[split]:
        for example in builder(split, random_state):
            examples.setdefault(example.context, example)
    return tuple(list(examples.values())[: SIZES[split]])


def build_examples(task: str, split: str) -> list[Example]:
    """Return the examples of one task and split, the same ones at every call.

    Args:
        task: A task of the embedded suite.
        split: One of `SPLITS`.
    """
    return list(_examples(task, split))


def _facts_builder(task: str) -> Callable[[str, random.Random], Iterator[Example]]:
    def questions(split: str, random_state: random.Random) -> Iterator[Example]:
        company = invent_company(split, random_state)
        asked = filing_examples(task, as_filing(company), seed=random_state.randrange(2**31))
        for example in random_state.sample(asked, min(_QUESTIONS_PER_COMPANY[split], len(asked))):
            yield replace(example, group=f"{company.name} {company.year}")

    assert task in FILING_TASKS, f"no builder for task {task!r}"
    return questions


def _numeral(split: str, random_state: random.Random) -> Iterator[Example]:
    written = note(invent_company(split, random_state), random_state)
    for numeral, tag in written.tagged:
        yield sentence_tag_question(written.sentence, numeral, tag)


def _sentiment(split: str, random_state: random.Random) -> Iterator[Example]:
    company, other = company_name(split, random_state), company_name(split, random_state)
    yield sentiment_question("news", *news(company, other, random_state))


def _headline(split: str, random_state: random.Random) -> Iterator[Example]:
    # A headline has no company, so the text itself decides its split.
    drawn = headline(random_state)
    if SPLITS[sum(map(ord, drawn.text)) % len(SPLITS)] != split:
        return
    key = random_state.choice(tuple(HEADLINE_QUESTIONS))
    truth = drawn.comparison if key == "comparison" else drawn.direction == key
    yield headline_question(drawn.text, HEADLINE_QUESTIONS[key], truth)


def _terms(split: str, random_state: random.Random) -> Iterator[Example]:
    concepts = sorted(CONCEPTS.values(), key=lambda concept: concept.tag)
    random.Random("term split").shuffle(concepts)
    first, last = (len(concepts) * tenth // 10 for tenth in _TERM_SPLIT[split])
    examples = [
        replace(term_question(term, definition), group=concept.tag)
        for concept in concepts[first:last]
        for term, definition in (
            (concept.label, concept.definition),
            (f"us-gaap:{concept.tag}", concept.definition),
            (f"increase in {concept.label}", f"rise in the period of {concept.definition}"),
            (f"average {concept.label}", f"mean over the period of {concept.definition}"),
        )
    ]
    random_state.shuffle(examples)
    yield from examples


_SENTENCE_TASKS: dict[str, Callable[[str, random.Random], Iterator[Example]]] = {
    "finer": _numeral,
    "sentiment": _sentiment,
    "headline": _headline,
}
