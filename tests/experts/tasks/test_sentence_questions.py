"""Tagging questions from sentences written here: what is asked, and what is dropped and why."""

import pytest

from finlora.experts.errors import FinLoraError
from finlora.experts.filings.inline_sentences import TaggedNumeral, TaggedSentence
from finlora.experts.tasks.sentence_questions import sentence_questions


def sentence(text: str, *tagged: tuple[str, str]) -> TaggedSentence:
    """Each numeral is tagged at its first place after the one before."""
    numerals, start = [], 0
    for numeral, tag in tagged:
        start = text.index(numeral, start)
        numerals.append(TaggedNumeral(numeral, tag, start, start + len(numeral)))
        start += len(numeral)
    return TaggedSentence(text, numerals)


DEBT, CASH = "us-gaap:LongTermDebt", "us-gaap:Cash"


def test_finer_asks_each_numeral_and_fnxl_each_tag() -> None:
    """A third numeral of the same tag is one more question in FiNER's form only."""
    text = "Debt was $5.2 million and $4.1 million, and cash was $3 million."
    sentences = [sentence(text, ("5.2", DEBT), ("4.1", DEBT), ("3", CASH))]
    finer, fnxl = sentence_questions("finer", sentences), sentence_questions("fnxl", sentences)
    assert [example.target for example in finer.examples] == ["LongTermDebt", "LongTermDebt", "Cash"]
    assert [example.target for example in fnxl.examples] == ["LongTermDebt", "Cash"]
    assert fnxl.dropped == {"tag asked already in the sentence": 1}
    assert finer.examples[0].context.startswith(
        'What is the best us gaap tag for entity "5.2" in sentence: "Debt'
    )
    assert {example.group for example in finer.examples} == {
        "debt was $0.0 million and $0.0 million, and cash was $0 million."
    }


def test_what_has_no_single_answer_is_dropped() -> None:
    """Extensions, numerals that also stand elsewhere in the sentence, and one question with two answers."""
    sentences = [
        sentence("It has 7 robots in its 1 plant today.", ("7", "acme:Robots")),
        sentence("Debt of $5 million is due in 5 years.", ("5", DEBT)),
        sentence("Debt of $5 million matured, and $5 million was borrowed.", ("5", DEBT), ("5", DEBT)),
        sentence("Cash of $5 million, debt of $5 million and rent.", ("5", CASH), ("5", DEBT)),
        sentence("Debt of $1.5 million, 15 of 5,000 notes, and 5.", ("5,000", DEBT)),
        sentence("The amount was $9 million in all.", ("9", DEBT)),
        sentence("The amount was $9 million in all.", ("9", CASH)),
        sentence("The other was $8 million in all.", ("8", CASH)),
        sentence("The other was $8 million in all.", ("8", CASH)),
    ]
    built = sentence_questions("finer", sentences)
    assert [example.target for example in built.examples] == ["LongTermDebt", "LongTermDebt", "Cash"]
    assert built.dropped == {
        "tag outside us-gaap": 1,
        "numeral more than once in the sentence": 3,
        "same question again": 2,
        "same question with another answer": 2,
    }


def test_only_given_tags_are_asked() -> None:
    sentences = [sentence("Debt was $5 million and cash $3 million.", ("5", DEBT), ("3", CASH))]
    built = sentence_questions("finer", sentences, tags={"Cash"})
    assert [example.target for example in built.examples] == ["Cash"]
    assert built.dropped == {"tag that is not asked": 1}


def test_other_tasks_are_refused() -> None:
    with pytest.raises(FinLoraError, match="finer, fnxl"):
        sentence_questions("fpb", [])
