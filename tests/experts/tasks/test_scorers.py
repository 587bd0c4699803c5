"""Scorers: gold scores 1 against itself, near misses score 0."""

import random
from decimal import Decimal

import pytest

from finlora.experts.tasks import TASKS
from finlora.experts.tasks.scorers import (
    formula_score,
    label_score,
    number_score,
    parse_number,
    rounded_number_score,
    tag_score,
    tags_score,
    text_score,
)

SCORERS = [
    formula_score,
    label_score,
    number_score,
    rounded_number_score,
    tag_score,
    tags_score,
    text_score,
]
TAGS = ("Assets", "AssetsCurrent", "Goodwill", "GoodwillImpairmentLoss", "NetIncomeLoss", "Revenues")
WORDS = (
    "amount",
    "the",
    "of",
    "Net,",
    "(loss)",
    "income",
    "12.5%",
    "a",
    "us-gaap:Assets",
    "$1,000",
    "-3.0",
    "ü",
)


def random_target(chance: random.Random) -> str:
    """A tag, list, number, formula or text, with odd spacing and signs."""
    number = f"{chance.choice(['', '-', '$'])}{chance.randrange(10**9):,}{chance.choice(['', '.0', '.25'])}"
    tags = chance.sample(TAGS, 3)
    formula = f"(us-gaap:{tags[0]} - {tags[1]}) / us-gaap:{tags[2]} * {chance.randrange(1, 100)}"
    text = " ".join(chance.choices(WORDS, k=chance.randint(1, 8)))
    return chance.choice([number, ",".join(tags), f"us-gaap:{tags[0]}", formula, text])


@pytest.mark.parametrize("scorer", SCORERS)
def test_gold_scores_one_against_itself(scorer):
    """Whatever the target looks like, even when it is not of the scorer's own kind."""
    chance = random.Random(0)
    for target in (random_target(chance) for _ in range(300)):
        assert scorer(target, target) == 1.0, target


@pytest.mark.parametrize("scorer", SCORERS)
def test_scores_lie_between_zero_and_one_and_empty_answers_score_zero(scorer):
    """Any answer to any question has a score, and silence is wrong."""
    chance = random.Random(1)
    for _ in range(300):
        target, prediction = random_target(chance), random_target(chance)
        assert 0.0 <= scorer(prediction, target) <= 1.0
        if target.strip("the a"):
            assert scorer("", target) == 0.0, target


@pytest.mark.parametrize("scorer", [number_score, rounded_number_score, label_score, tag_score])
def test_different_numbers_score_zero(scorer):
    """No two different numbers are taken for each other."""
    chance = random.Random(2)
    for _ in range(300):
        value = Decimal(chance.randrange(-(10**8), 10**8)) / 100
        other = value + Decimal(chance.choice([-100000, -1, 1, 100000])) * Decimal("1.01")
        assert scorer(str(other), str(value)) == 0.0


@pytest.mark.parametrize(
    ("scorer", "prediction", "target"),
    [
        (label_score, " Neutral.\n", "neutral"),
        (label_score, "moderately  positive", "Moderately positive"),
        (tag_score, "Assets", "us-gaap:Assets"),
        (tags_score, "us-gaap:Assets, Goodwill", "Assets,Goodwill"),
        (number_score, "$3,875,393,000,000", "3875393000000.0"),
        (number_score, "(12.50)", "-12.5"),
        (number_score, "\N{MINUS SIGN}7%", "-7"),
        (number_score, "(-5)", "-5"),
        (number_score, "($-5)", "(5)"),
        (number_score, "(+5)", "5"),
        (number_score, "1e3", "1000"),
        (rounded_number_score, "21462.5799", "21462.58"),
        (rounded_number_score, "40.00%", "40.0"),
        (formula_score, "100 * Assets / Liabilities", "(us-gaap:Assets / us-gaap:Liabilities) * 100"),
        (text_score, "An amount of income", "the amount, of income."),
    ],
)
def test_equal_answers_written_differently_score_one(scorer, prediction, target):
    """Only the differences that each scorer documents are overlooked."""
    assert scorer(prediction, target) == 1.0


@pytest.mark.parametrize(
    ("scorer", "prediction", "target"),
    [
        (label_score, "positive or neutral", "positive"),
        (label_score, "not positive", "positive"),
        (label_score, "No, it does not", "No"),
        (tag_score, "AssetsCurrent", "Assets"),
        (tag_score, "Assets", "AssetsCurrent"),
        (tag_score, "assets", "Assets"),
        (tag_score, "jpm:Assets", "Assets"),
        (number_score, "3.0", "3.01"),
        (number_score, "3.01", "3.0"),
        (number_score, "38753930000000", "3875393000000"),
        (number_score, "12 34", "12"),
        (number_score, "12.3.4", "12.3"),
        (number_score, "-5", "5"),
        (number_score, "(-5)", "5"),
        (number_score, "(5)", "5"),
        (number_score, "nan", "5"),
        (rounded_number_score, "3.0", "3.01"),
        (rounded_number_score, "3", "3.01"),
        (rounded_number_score, "about 3.01", "3.01"),
        (text_score, "liabilities", "amount of income"),
    ],
)
def test_near_misses_score_zero(scorer, prediction, target):
    """The answers that FinLoRA's substring search confuses."""
    assert scorer(prediction, target) == 0.0


@pytest.mark.parametrize(
    ("prediction", "share"),
    [
        ("A,B,C,D", 1.0),
        ("A,X,C,D", 0.75),
        ("A,B", 0.5),
        ("X,A,B,C", 0.0),
        ("A,B,C,D,E", 0.8),
        ("A,B,C,D,E,F,G,H", 0.5),
    ],
)
def test_tag_lists_count_by_position(prediction, share):
    """Missing tags are wrong, and naming more tags than asked does not pay."""
    assert tags_score(prediction, "A,B,C,D") == share


def test_text_score_is_the_f1_of_shared_words():
    """Two of three predicted words are among four wanted: precision 2/3, recall 1/2."""
    assert text_score("income and tax", "net income before tax") == pytest.approx(2 * 2 / (3 + 4))


@pytest.mark.parametrize(
    ("prediction", "target", "share"),
    [
        ("U.S.-based 'net' income!", "us based net income", 2 / 7 * 2),
        ("net \N{EN DASH} income", "net income", 2 * 2 / 5),
        ("\N{EURO SIGN}5", "5", 0.0),
        ("\N{LEFT DOUBLE QUOTATION MARK}cash\N{RIGHT DOUBLE QUOTATION MARK}", "cash", 0.0),
    ],
)
def test_text_score_deletes_ascii_punctuation_alone(prediction, target, share):
    """As SQuAD's evaluate-v1.1.py, which deletes the characters of Python's string.punctuation."""
    assert text_score(prediction, target) == pytest.approx(share)


def test_parse_number_refuses_what_is_no_number():
    """Words, bare signs and misplaced separators are not numbers."""
    for text in ("", "$", "-", ".", "1,00", "1,0000", "5 million", "1e", "Infinity", "--5", "(5", "1.2.3"):
        assert parse_number(text) is None, text


def test_task_score_is_a_percentage():
    """The mean over examples times 100; no examples make no points."""
    task = TASKS["xbrl_tags"]
    assert task.score(["us-gaap:Assets", "Goodwill", "x", "y"], ["Assets", "Goodwill", "a", "b"]) == 50.0
    assert task.score([], []) == 0.0
