"""Documents that reward looking numbers and names up: facts of a company, then statements about some.

A document is a list of `(text, weight)` pieces. Numbers that nobody could predict have weight 0, so the loss
is spent on what can be learnt: the numbers, names and formulas that an earlier piece determines.
"""

import random
import re

from ..filings.concepts import CONCEPTS
from ..filings.invented import Company, company_name, invent_company
from ..filings.ratios import RATIOS, Ratio
from .words import random_name, random_value, random_words

Piece = tuple[str, float]
Document = list[Piece]

_PREFIXED = re.compile(r"us-gaap:(\w+)")
_SEPARATORS = (" ", " = ", " is ", ": ", " was ", " of ", "\n", " at ", ", ", " -> ")
_BETWEEN = (
    " of {company}",
    " of {company} for {year}",
    " of {company}, as filed in {year},",
    " at {company}",
    " in the books of {company} in {year}",
    ", a figure from {year}",
    " in {year}",
)
_CLOSINGS = (
    " was ",
    " is ",
    " amounted to ",
    " came to ",
    ": ",
    " = ",
    "? It was ",
    " was reported.\nThe figure is ",
)
_CLOSINGS += ("\nAmount: ", "?\nNumber: ", ".\nIt is ", "\nResult: ", "?\n", " -> ")


def facts_document(random_state: random.Random) -> Document:
    """Return facts of one company in a random layout, then statements that look some of them up."""
    if random_state.random() < 0.6:
        company = invent_company("train", random_state)
        facts = _sample_facts(company, random_state)
        labels = {tag: CONCEPTS[tag].label for tag in facts}
    else:
        company = Company(company_name("train", random_state), random_state.randint(2009, 2025), {})
        facts = {
            random_name(random_state): random_value(random_state) for _ in range(random_state.randint(2, 12))
        }
        labels = {}
    document: Document = [
        (random_state.choice(("", f"{company.name}\n", f"Fiscal year {company.year}\n")), 0.3)
    ]
    by_label = bool(labels) and random_state.random() < 0.25
    document += _listing(facts, labels if by_label else {}, random_state)
    for _ in range(random_state.randint(3, 8)):
        document += _statement(company, facts, labels, random_state)
    return document


def easy_document(random_state: random.Random) -> Document:
    """Return the easiest look-ups: few facts of single-token names, each asked by its name."""
    company = invent_company("train", random_state)
    tags = random_state.sample(sorted(company.facts), random_state.randint(2, 5))
    facts = {tag: company.facts[tag] for tag in tags}
    document = _listing(facts, {}, random_state)
    for _ in range(8):
        tag = random_state.choice(tags)
        separator = random_state.choice(_SEPARATORS[:4])
        document += [(f"us-gaap:{tag}", 0.0), (separator, 0.0), (facts[tag], 1.0), ("\n", 0.0)]
    return document


def _sample_facts(company: Company, random_state: random.Random) -> dict[str, str]:
    """Take a few facts; half of the time the parts of one ratio are among them."""
    tags = random_state.sample(sorted(company.facts), random_state.randint(2, 12))
    if random_state.random() < 0.5:
        tags += names_in(ratio_formula(random_state.choice(RATIOS)))
    tags = list(dict.fromkeys(tag for tag in tags if tag in company.facts))
    random_state.shuffle(tags)
    return {tag: company.facts[tag] for tag in tags}


def _listing(facts: dict[str, str], labels: dict[str, str], random_state: random.Random) -> Document:
    xml = not labels and random_state.random() < 0.7
    separator = random_state.choice(_SEPARATORS)
    document: Document = []
    for tag, value in facts.items():
        if xml:
            document += [(f"<us-gaap:{tag}", 0.1), (">", 0.1), (value, 0.0), ("</>\n", 0.1)]
        else:
            document += [
                (labels.get(tag, f"us-gaap:{tag}"), 0.1),
                (separator, 0.1),
                (value, 0.0),
                ("\n", 0.1),
            ]
    return document


def _statement(
    company: Company, facts: dict[str, str], labels: dict[str, str], random_state: random.Random
) -> Document:
    """One sentence that a reader of the facts could complete."""
    tag, value = random_state.choice(list(facts.items()))
    kind = random_state.random()
    name = labels[tag] if labels and kind < 0.3 else f"us-gaap:{tag}"
    lead = random_state.choice(
        ("", "The ", "value of ", "Here ", "and ", "The value of ", random_words(random_state))
    )
    if kind < 0.45:
        separator = random_state.choice(_SEPARATORS)
    elif kind < 0.75:
        separator = _far(company, random_state)
    elif kind < 0.85:
        return _inverse(tag, value, labels, random_state)
    else:
        return _ratio(facts, random_state) or [(f"us-gaap:{tag}", 0.1), (f" {value}\n", 1.0)]
    # The blank of " 1234" belongs to the separator, as it does in " " + answer.
    separator = separator if separator.endswith((" ", "\n")) else separator + " "
    return [
        (lead + name, 0.1),
        (separator, 0.1),
        (value, 1.0),
        (random_state.choice((".\n", "\n", ";\n")), 0.2),
    ]


def _far(company: Company, random_state: random.Random) -> str:
    """Words between a name and its number, of any length, so that a look-up cannot count on a distance."""
    between = random_state.choice(_BETWEEN).format(company=company.name, year=company.year)
    filler = f" {random_words(random_state)}".rstrip() if random_state.random() < 0.3 else ""
    return between + filler + random_state.choice(_CLOSINGS)


def _inverse(tag: str, value: str, labels: dict[str, str], random_state: random.Random) -> Document:
    """From a value, or a label, to the tag."""
    if labels and random_state.random() < 0.6:
        link = random_state.choice((" = us-gaap:", " is tagged us-gaap:", " as us-gaap:", ": us-gaap:"))
        return [(labels[tag], 0.1), (link, 0.2), (tag, 1.0), ("\n", 0.2)]
    return [
        (value, 0.0),
        (random_state.choice((" is us-gaap:", " for us-gaap:", " = us-gaap:")), 0.2),
        (tag, 1.0),
        ("\n", 0.2),
    ]


def _ratio(facts: dict[str, str], random_state: random.Random) -> Document:
    """A ratio whose parts are reported, or a made-up one of two facts: in names, in numbers, or in both."""
    known = [(ratio, formula) for ratio in RATIOS if (formula := ratio.with_tags(facts))]
    link = random_state.choice((" = ", " gives ", "\nthat is "))
    if not known or random_state.random() < 0.3:
        tags = [random_state.choice(list(facts)) for _ in range(2)]
        formula, numbers = (
            " / ".join(f"us-gaap:{tag}" for tag in tags),
            " / ".join(facts[tag] for tag in tags),
        )
        return [(formula, 0.1), (link, 0.1), (numbers, 1.0), ("\n", 0.2)]
    ratio, formula = random_state.choice(known)
    name = ratio.name if random_state.random() < 0.5 else ratio.name.lower()
    document: Document = [(name, 0.2), (random_state.choice((": ", " is ", " = ", " comes to ")), 0.1)]
    if random_state.random() < 0.4:
        document += [(formula, 1.0), (link, 0.1)]
    return [*document, (_PREFIXED.sub(lambda match: facts[match[1]], formula), 1.0), ("\n", 0.2)]


def ratio_formula(ratio: Ratio) -> str:
    """Return the formula of a ratio over the invented concepts."""
    formula = ratio.with_tags(CONCEPTS)
    assert formula is not None, "every ratio has tags among the invented concepts"
    return formula


def names_in(formula: str) -> list[str]:
    """Return the us-gaap names of a formula, without prefix, in order."""
    return _PREFIXED.findall(formula)
