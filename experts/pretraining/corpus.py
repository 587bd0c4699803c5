"""The pretraining text: filing-like documents that reward looking names and numbers up, and prose.

A document is a list of `(text, weight)` pieces. Numbers that nobody could predict have weight 0, so the loss is
spent on what can be learnt: repeated numbers, names, definitions, prose. No document uses the question formats of
the tasks (`Question:`, `Answer:`, `Instruction:`), and only the training split's company names occur.
"""

import random
import re
from collections.abc import Callable

from ..filings.concepts import CONCEPTS
from ..filings.invented import Company, company_name, invent_company
from ..filings.prose import headline, news, note
from ..filings.ratios import RATIOS, Ratio

Piece = tuple[str, float]
Document = list[Piece]

_PREFIXED = re.compile(r"us-gaap:(\w+)")
_NAME_WORDS = (
    "Accrued Acquired Adjustment Allocation Allowance Annual Asset Available Award Balance Bank Benefit Bond Building "
    "Business Capital Cash Charge Claim Collateral Commercial Commitment Component Construction Contract Credit Current "
    "Customer Debt Deferred Deposit Derivative Discount Dividend Employee Equipment Equity Estimated Exchange Exercise "
    "Expected Expense Fair Federal Finance Foreign Fund Future Gain Gross Held Income Increase Instrument Insurance "
    "Interest Inventory Investment Issued Land Lease Legal Liability License Loan Loss Margin Market Maturity Net Note "
    "Obligation Operating Option Order Other Owned Parent Payable Payment Pension Period Plan Policy Portfolio Premium "
    "Price Product Profit Property Provision Purchase Rate Receivable Remaining Rent Reserve Restricted Return Revenue "
    "Right Royalty Sale Secured Security Segment Service Settlement Share Software Stock Tax Term Total Trade Unit Value"
).split()
_COMMON_WORDS = (
    "answer Answer question Question instruction Instruction input Input output Output file File tag tags value formula "
    "extraction construction calculation number only with sentence brief explain Explain term entity best choose from "
    "please Please what What which Which XBRL XML GAAP US us gaap news tweet headline sentiment positive negative neutral "
    "Yes No price going up down constant compare gold asset talk about Does does the The of and in for by is at"
).split()
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
_CLOSINGS = (" was ", " is ", " amounted to ", " came to ", ": ", " = ", "? It was ", " was reported.\nThe figure is ")
_CLOSINGS += ("\nAmount: ", "?\nNumber: ", ".\nIt is ", "\nResult: ", "?\n", " -> ")


def facts_document(random_state: random.Random) -> Document:
    """Facts of one company in a random order and layout, then statements that look some of them up."""
    if random_state.random() < 0.6:
        company = invent_company("train", random_state)
        facts = _sample_facts(company, random_state)
        labels = {tag: CONCEPTS[tag].label for tag in facts}
    else:
        company = Company(company_name("train", random_state), random_state.randint(2009, 2025), {})
        facts = {_random_name(random_state): _random_value(random_state) for _ in range(random_state.randint(2, 12))}
        labels = {}
    document: Document = [(random_state.choice(("", f"{company.name}\n", f"Fiscal year {company.year}\n")), 0.3)]
    by_label = bool(labels) and random_state.random() < 0.25
    document += _listing(facts, labels if by_label else {}, random_state)
    for _ in range(random_state.randint(3, 8)):
        document += _statement(company, facts, labels, random_state)
    return document


def first_stage_document(random_state: random.Random) -> Document:
    """The easiest look-ups, with which training starts: few facts of single-token names, each asked by its name."""
    if random_state.random() < 0.2:
        return repeated_document(random_state)
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
        tags += names_in(_formula(random_state.choice(RATIOS)))
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
            document += [(labels.get(tag, f"us-gaap:{tag}"), 0.1), (separator, 0.1), (value, 0.0), ("\n", 0.1)]
    return document


def _statement(
    company: Company, facts: dict[str, str], labels: dict[str, str], random_state: random.Random
) -> Document:
    """One sentence that a reader of the facts could complete."""
    tag, value = random_state.choice(list(facts.items()))
    kind = random_state.random()
    name = labels[tag] if labels and kind < 0.3 else f"us-gaap:{tag}"
    lead = random_state.choice(("", "The ", "value of ", "Here ", "and ", "The value of ", _words(random_state)))
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
    return [(lead + name, 0.1), (separator, 0.1), (value, 1.0), (random_state.choice((".\n", "\n", ";\n")), 0.2)]


_IN_PLAIN_WORDS = {
    "negative": "bad",
    "neutral": "neither good nor bad",
    "positive": "good",
    "up": "a higher price",
    "down": "a lower price",
    "constant": "the same price",
}


def _far(company: Company, random_state: random.Random) -> str:
    """Words between a name and its number, of any length, so that a look-up cannot count on a distance."""
    between = random_state.choice(_BETWEEN).format(company=company.name, year=company.year)
    filler = f" {_words(random_state)}".rstrip() if random_state.random() < 0.3 else ""
    return between + filler + random_state.choice(_CLOSINGS)


def _words(random_state: random.Random) -> str:
    return "".join(f"{random_state.choice(_COMMON_WORDS)} " for _ in range(random_state.randint(1, 5)))


def _inverse(tag: str, value: str, labels: dict[str, str], random_state: random.Random) -> Document:
    """From a value, or a label, to the tag."""
    if labels and random_state.random() < 0.6:
        link = random_state.choice((" = us-gaap:", " is tagged us-gaap:", " as us-gaap:", ": us-gaap:"))
        return [(labels[tag], 0.1), (link, 0.2), (tag, 1.0), ("\n", 0.2)]
    return [(value, 0.0), (random_state.choice((" is us-gaap:", " for us-gaap:", " = us-gaap:")), 0.2), (tag, 1.0), ("\n", 0.2)]


def _ratio(facts: dict[str, str], random_state: random.Random) -> Document:
    """A ratio whose parts are reported, or a made-up one of two facts: in names, in numbers, or in both."""
    known = [(ratio, formula) for ratio in RATIOS if (formula := ratio.with_tags(facts))]
    link = random_state.choice((" = ", " gives ", "\nthat is "))
    if not known or random_state.random() < 0.3:
        tags = [random_state.choice(list(facts)) for _ in range(2)]
        formula, numbers = " / ".join(f"us-gaap:{tag}" for tag in tags), " / ".join(facts[tag] for tag in tags)
        return [(formula, 0.1), (link, 0.1), (numbers, 1.0), ("\n", 0.2)]
    ratio, formula = random_state.choice(known)
    name = ratio.name if random_state.random() < 0.5 else ratio.name.lower()
    document: Document = [(name, 0.2), (random_state.choice((": ", " is ", " = ", " comes to ")), 0.1)]
    if random_state.random() < 0.4:
        document += [(formula, 1.0), (link, 0.1)]
    return [*document, (_PREFIXED.sub(lambda match: facts[match[1]], formula), 1.0), ("\n", 0.2)]


def _formula(ratio: Ratio) -> str:
    formula = ratio.with_tags(CONCEPTS)
    assert formula is not None, "every ratio has tags among the invented concepts"
    return formula


def names_in(formula: str) -> list[str]:
    """Return the us-gaap names of a formula, without prefix, in order."""
    return _PREFIXED.findall(formula)


def _random_name(random_state: random.Random) -> str:
    return "".join(random_state.sample(_NAME_WORDS, random_state.randint(1, 4)))


def _random_value(random_state: random.Random) -> str:
    if random_state.random() < 0.1:
        return f"{random_state.uniform(0.1, 40):.2f}"
    sign = "-" if random_state.random() < 0.1 else ""
    zeros = random_state.choice(("", "000", "000000"))
    return f"{sign}{round(10 ** random_state.uniform(1.5, 6))}{zeros}"


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
    document.append((f"The {name} equals {_formula(ratio)}.\n", 0.7))
    return document


def prose_document(random_state: random.Random) -> Document:
    """Notes of filings, news and headlines, with what they mean in plain words but not in those of the tasks."""
    document: Document = []
    for _ in range(4):
        company = Company(company_name("train", random_state), random_state.randint(2009, 2025), {})
        kind = random_state.random()
        if kind < 0.5:
            written = note(company, random_state)
            document.append((written.sentence, 0.4))
            for numeral, tag in written.tagged:
                document += [(f" {numeral}", 0.0), (random_state.choice((" - us-gaap:", ": us-gaap:", " = us-gaap:")), 0.1)]
                document.append((tag, 1.0))
            document.append(("\n", 0.2))
        elif kind < 0.75:
            text, sentiment = news(company.name, company_name("train", random_state), random_state)
            document += [(text, 0.3), (f" That is {_IN_PLAIN_WORDS[sentiment]} for {company.name}.\n", 1.0)]
        else:
            drawn = headline(random_state)
            comparison = "next to another asset" if drawn.comparison else "alone"
            document += [(drawn.text, 0.3), (f" - {_IN_PLAIN_WORDS[drawn.direction]}, gold {comparison}.\n", 1.0)]
    return document


def repeated_document(random_state: random.Random) -> Document:
    """Random words repeated at random distances, so that copying by position does not help."""
    words = [_random_word(random_state) for _ in range(12)]
    segments = [words[start : start + random_state.randint(2, 5)] for start in random_state.sample(range(8), 4)]
    space = random_state.choice((" ", " ", "\n"))
    document: Document = [(space + space.join(segment), 0.0) for segment in segments]
    for _ in range(5):
        segment = random_state.choice(segments)
        gap = "".join(space + random_state.choice(_NAME_WORDS) for _ in range(random_state.randint(0, 6)))
        document += [(gap + space + segment[0], 0.0), (space + space.join(segment[1:]), 1.0)]
    return document


def _random_word(random_state: random.Random) -> str:
    kind = random_state.random()
    if kind < 0.3:
        return _random_value(random_state)
    return random_state.choice(_NAME_WORDS if kind < 0.6 else _COMMON_WORDS)


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
