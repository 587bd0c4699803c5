"""The pretraining text is predictable where it has weight, and never shows how tasks ask."""

import random

import pytest

from finlora.experts.filings.concepts import CONCEPTS
from finlora.experts.pretraining.corpus import invented_document
from finlora.experts.pretraining.look_ups import facts_document
from finlora.experts.pretraining.probes import look_up_document


def texts(builder, count: int = 200) -> list[str]:
    return ["".join(text for text, _ in builder(random.Random(seed))) for seed in range(count)]


def test_documents_depend_on_the_seed_alone() -> None:
    assert texts(invented_document, 20) == texts(invented_document, 20)


@pytest.mark.parametrize("wording", ["Question:", "Answer:", "Instruction:", "XML File:", "best us gaap tag"])
def test_no_document_uses_the_question_formats_of_the_tasks(wording: str) -> None:
    assert not [text for text in texts(invented_document) if wording in text]


def test_numbers_with_weight_stand_earlier_in_their_document() -> None:
    for seed in range(100):
        seen = ""
        for text, weight in facts_document(random.Random(seed)):
            if weight == 1.0:
                for word in text.replace("(", "").replace(")", "").split():
                    known = word in seen or word.removeprefix("us-gaap:") in CONCEPTS or word in "/-*100"
                    assert known, f"seed {seed}: {word!r} cannot be looked up"
            seen += text


@pytest.mark.parametrize("key", ["name", "label"])
def test_a_probe_asks_for_facts_that_it_shows(key: str) -> None:
    document = look_up_document(random.Random(0), 4, key)
    shown, answers = document[0][0], [text for text, weight in document if weight == 1.0]
    assert shown.count("<us-gaap:") == 4
    assert len(answers) == 2
    assert all(f">{answer}</>" in shown for answer in answers)
