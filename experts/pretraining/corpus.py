"""The pretraining text: look-ups, copying, knowledge and prose, and how much of each.

No document uses the question formats of the tasks (`Question:`, `Answer:`, `Instruction:`), and only company
names of the training split occur.
"""

import random
from collections.abc import Callable

from ..filings.concepts import CONCEPTS
from ..filings.invented import Company, company_name
from ..filings.prose import headline, news, note
from ..filings.ratios import RATIOS
from .look_ups import Document, easy_document, facts_document, ratio_formula
from .words import NAME_WORDS, random_word

_IN_PLAIN_WORDS = {
    "negative": "bad",
    "neutral": "neither good nor bad",
    "positive": "good",
    "up": "a higher price",
    "down": "a lower price",
    "constant": "the same price",
}


def first_stage_document(random_state: random.Random) -> Document:
    """Return what training starts with: easy look-ups, and some copying."""
    return (repeated_document if random_state.random() < 0.2 else easy_document)(random_state)


def knowledge_document(random_state: random.Random) -> Document:
    """Labels, us-gaap names, definitions and formulas in plain sentences."""
    document: Document = []
    for concept in random_state.sample(list(CONCEPTS.values()), 4):
        name = random_state.choice((concept.label, f"us-gaap:{concept.tag}"))
        sentences = (
            f"{name} means {concept.definition}.\n",
            f"{name} is defined as {concept.definition}.\n",
            f"Definition of {name} - {concept.definition}.\n",
            f"{name}: {concept.definition}.\n",
            f"The element us-gaap:{concept.tag} has the label {concept.label}.\n",
            f"{concept.label} goes under us-gaap:{concept.tag}.\n",
        )
        document.append((random_state.choice(sentences), 1.0))
    ratio = random_state.choice(RATIOS)
    name = ratio.name if random_state.random() < 0.5 else ratio.name.lower()
    document.append((f"The {name} equals {ratio_formula(ratio)}.\n", 0.7))
    return document


def prose_document(random_state: random.Random) -> Document:
    """Return notes, news and headlines, with what they mean in plain words, not in those of the tasks."""
    document: Document = []
    for _ in range(4):
        company = Company(company_name("train", random_state), random_state.randint(2009, 2025), {})
        kind = random_state.random()
        if kind < 0.5:
            written = note(company, random_state)
            document.append((written.sentence, 0.4))
            for numeral, tag in written.tagged:
                document += [
                    (f" {numeral}", 0.0),
                    (random_state.choice((" - us-gaap:", ": us-gaap:", " = us-gaap:")), 0.1),
                ]
                document.append((tag, 1.0))
            document.append(("\n", 0.2))
        elif kind < 0.75:
            text, sentiment = news(company.name, company_name("train", random_state), random_state)
            document += [(text, 0.3), (f" That is {_IN_PLAIN_WORDS[sentiment]} for {company.name}.\n", 1.0)]
        else:
            drawn = headline(random_state)
            comparison = "next to another asset" if drawn.comparison else "alone"
            document += [
                (drawn.text, 0.3),
                (f" - {_IN_PLAIN_WORDS[drawn.direction]}, gold {comparison}.\n", 1.0),
            ]
    return document


def repeated_document(random_state: random.Random) -> Document:
    """Random words repeated at random distances, so that copying by position does not help."""
    words = [random_word(random_state) for _ in range(12)]
    segments = [
        words[start : start + random_state.randint(2, 5)] for start in random_state.sample(range(8), 4)
    ]
    space = random_state.choice((" ", " ", "\n"))
    document: Document = [(space + space.join(segment), 0.0) for segment in segments]
    for _ in range(5):
        segment = random_state.choice(segments)
        gap = "".join(space + random_state.choice(NAME_WORDS) for _ in range(random_state.randint(0, 6)))
        document += [(gap + space + segment[0], 0.0), (space + space.join(segment[1:]), 1.0)]
    return document


MIXTURE: tuple[tuple[Callable[[random.Random], Document], float], ...] = (
    (facts_document, 0.3),
    (first_stage_document, 0.03),
    (knowledge_document, 0.25),
    (prose_document, 0.35),
    (repeated_document, 0.07),
)
"""Builders and their share of the invented documents."""


def invented_document(random_state: random.Random) -> Document:
    """Draw one document of `MIXTURE`."""
    builders, shares = zip(*MIXTURE, strict=True)
    return random_state.choices(builders, shares)[0](random_state)
