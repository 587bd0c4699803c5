"""Sentences about invented companies: notes with tagged amounts, news, and headlines on the price of gold.

Each function returns the text together with what is true of it (tag, sentiment, price direction), so a task
builder can ask and a corpus builder can just read.
"""

import random
from dataclasses import dataclass

from .concepts import CONCEPTS
from .invented import Company

_NOTE_OPENINGS = (
    "As of December 31, {year}, the Company had",
    "At the end of {year}, {company} reported",
    "During {year}, {company} recorded",
    "In the fourth quarter of {year}, the Company recognized",
    "For the year ended December 31, {year}, there was",
)
_NOTE_AMOUNTS = (
    "${amount} million of {label}",
    "{label} of ${amount} million",
    "{label} totaling ${amount} million",
)


@dataclass(frozen=True)
class Note:
    """A sentence of a filing's notes whose amounts are tagged."""

    sentence: str
    tagged: tuple[tuple[str, str], ...]
    """Pairs (numeral as written, us-gaap name), in the order of the sentence."""


def note(company: Company, random_state: random.Random) -> Note:
    """Return a sentence with one or two tagged amounts of distinct concepts, in millions."""
    tags = random_state.sample(sorted(CONCEPTS), random_state.choice((1, 2)))
    numerals = random_state.sample(range(11, 9990), len(tags))
    tagged = tuple((f"{numeral / 10:.1f}", tag) for numeral, tag in zip(numerals, tags, strict=True))
    opening = random_state.choice(_NOTE_OPENINGS).format(year=company.year, company=company.name)
    amounts = [
        random_state.choice(_NOTE_AMOUNTS).format(amount=numeral, label=CONCEPTS[tag].label)
        for numeral, tag in tagged
    ]
    return Note(f"{opening} {' and '.join(amounts)}.", tagged)


_GOOD_MEASURES = (
    "net sales",
    "operating profit",
    "order intake",
    "cash flow",
    "market share",
    "earnings per share",
)
_BAD_MEASURES = (
    "net loss",
    "operating costs",
    "net debt",
    "customer complaints",
    "credit losses",
    "staff turnover",
)
_RISES = ("rose", "increased", "climbed", "grew", "jumped")
_FALLS = ("fell", "decreased", "declined", "dropped", "shrank")
_PERIODS = (
    "in the first quarter",
    "in the second half",
    "for the full year",
    "from a year earlier",
    "in {month}",
)
_MONTHS = ("January", "March", "May", "June", "August", "October", "November")
_GOOD_EVENTS = (
    "won a large order from {other}",
    "raised its outlook for the year",
    "was upgraded to buy by analysts",
    "beat the estimates of analysts",
)
_BAD_EVENTS = (
    "lost a lawsuit against {other}",
    "issued a profit warning",
    "was downgraded to sell by analysts",
    "missed the estimates of analysts",
)
_NEUTRAL_EVENTS = (
    "will publish its results in {month}",
    "is based in the city of {other}",
    "will hold its annual meeting in {month}",
    "appointed a new member of the board in {month}",
    "has offices in {number} countries",
    "makes products for customers in {number} countries",
)


def news(company: str, other: str, random_state: random.Random) -> tuple[str, str]:
    """Return a news sentence about `company` and its sentiment, each of the three equally likely."""
    sentiment = random_state.choice(("negative", "neutral", "positive"))
    month, number = random_state.choice(_MONTHS), random_state.randint(2, 90)
    if sentiment == "neutral":
        event = random_state.choice(_NEUTRAL_EVENTS)
    elif random_state.random() < 0.4:
        event = random_state.choice(_GOOD_EVENTS if sentiment == "positive" else _BAD_EVENTS)
    else:
        event = _movement(sentiment, random_state)
    return f"{company} {event.format(other=other, month=month, number=number)}.", sentiment


def _movement(sentiment: str, random_state: random.Random) -> str:
    """A measure that moved: good news is a good measure up or a bad one down."""
    good = random_state.random() < 0.5
    verbs = _RISES if good == (sentiment == "positive") else _FALLS
    measure = random_state.choice(_GOOD_MEASURES if good else _BAD_MEASURES)
    change = f"{random_state.randint(2, 60)} percent"
    return f"said {measure} {random_state.choice(verbs)} {change} {random_state.choice(_PERIODS)}"


_HEADLINE_VERBS = {
    "up": ("rises", "gains", "jumps", "climbs", "rallies"),
    "down": ("falls", "drops", "slips", "loses", "tumbles"),
    "constant": ("holds steady", "is flat", "is little changed", "stays unchanged"),
}
_CAUSES = (
    "on weak dollar",
    "after jobs data",
    "as stocks move",
    "before Fed meeting",
    "on inflation worries",
    "",
)
_OTHER_ASSETS = ("silver", "platinum", "oil", "copper", "bitcoin")


@dataclass(frozen=True)
class Headline:
    """A headline on gold and what it says."""

    text: str
    direction: str
    """`up`, `down` or `constant`."""
    comparison: bool
    """Whether another asset is compared with gold."""


def headline(random_state: random.Random) -> Headline:
    """Return a headline; direction is uniform and every second one compares gold with another asset."""
    direction = random_state.choice(tuple(_HEADLINE_VERBS))
    verb = random_state.choice(_HEADLINE_VERBS[direction])
    price = f"${random_state.randint(900, 2400)}"
    change = f" ${random_state.randint(2, 60)} to {price}" if direction != "constant" else f" at {price}"
    comparison = random_state.random() < 0.5
    other = f", {random_state.choice(_OTHER_ASSETS)} {random_state.choice(('lags', 'leads', 'follows'))}"
    text = f"gold {verb}{change} {random_state.choice(_CAUSES)}".strip() + (other if comparison else "")
    return Headline(text, direction, comparison)
