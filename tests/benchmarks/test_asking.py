"""Rewordings change the instruction and nothing that the answer depends on."""

import re

import pytest
from transformers import PreTrainedTokenizerFast

from finlora.benchmarks.asking import (
    WAYS,
    by_other_authors,
    in_training_wordings,
    reworded,
    with_examples,
    with_options_backwards,
)
from finlora.benchmarks.author_wordings import AUTHORS
from finlora.benchmarks.instructions import INSTRUCTIONS
from finlora.experts.encoding import encode_prompts
from finlora.experts.errors import FinLoraError
from finlora.experts.tasks import Example
from finlora.experts.tasks.suites import SUITES

EMBEDDED = SUITES["embedded"]


def words_of(text: str) -> list[str]:
    """Its words in lower case."""
    return re.findall(r"[a-z]+", text.lower())


def runs_of(words: list[str], length: int) -> set[tuple[str, ...]]:
    """All runs of so many words."""
    return {tuple(words[start : start + length]) for start in range(len(words) - length + 1)}


@pytest.mark.parametrize("task", EMBEDDED.tasks)
def test_every_question_of_the_embedded_suite_can_be_reworded(task: str):
    for example in EMBEDDED.examples(task, "test")[:40]:
        changed = reworded(example.context)
        assert changed != example.context
        # All that is not instruction stays: every number and every tag.
        for token in example.context.replace("\n", " ").split():
            if token[0].isdigit() or "us-gaap:" in token:
                assert token in changed
        assert changed.rstrip().endswith(example.context.rstrip()[-20:]) or task == "xbrl_term"


@pytest.mark.parametrize("instruction", INSTRUCTIONS, ids=lambda one: one.reworded[:20])
def test_no_wording_of_the_protocol_is_trained(instruction):
    """Not even three of its words in a row, in the training wordings of any instruction."""
    assert len(set(instruction.in_training)) == len(instruction.in_training) >= 3
    asked = runs_of(words_of(instruction.reworded), 3)
    for other in INSTRUCTIONS:
        for wording in other.in_training:
            assert not asked & runs_of(words_of(wording), 3), wording


@pytest.mark.parametrize("task", EMBEDDED.tasks)
def test_all_other_authors_ask_and_leave_the_rest_as_it_is(task: str):
    asked = EMBEDDED.examples(task, "test")[:60]
    instruction = next(one for one in INSTRUCTIONS if re.search(one.pattern, asked[0].context))
    beginnings = {wording.split(r"\1")[0][:12] for wording in instruction.by_others}
    assert len(beginnings) == 4
    seen = set()
    for example in asked:
        changed = by_other_authors(example.context)
        assert changed == by_other_authors(example.context) != reworded(example.context)
        seen |= {beginning for beginning in beginnings if beginning in changed}
        for token in example.context.replace("\n", " ").split():
            if token[0].isdigit() or "us-gaap:" in token:
                assert token in changed
    assert seen == beginnings


@pytest.mark.parametrize("instruction", INSTRUCTIONS, ids=lambda one: one.name)
def test_what_ten_authors_wrote_is_asked_by_no_protocol(instruction):
    """Nor five words of it in a row; shorter runs are what English and the subject make alike."""
    assert set(AUTHORS) == {one.name for one in INSTRUCTIONS}
    learned = AUTHORS[instruction.name]
    assert 5 <= len(set(learned)) == len(learned) <= 10
    trained = set().union(*(runs_of(words_of(wording), 5) for wording in learned))
    for other in INSTRUCTIONS:
        for wording in (other.reworded, *other.by_others):
            assert not trained & runs_of(words_of(wording), 5), wording
    for wording in learned:
        assert wording.count(r"\1") == (r"\1" in instruction.reworded)


def test_wordings_of_authors_come_in_turn():
    asked = EMBEDDED.examples("xbrl_tags", "train")[:28]
    instruction = next(one for one in INSTRUCTIONS if one.name == "xbrl_tags")
    changed = in_training_wordings(asked, authors=True)
    turns = 1 + len(instruction.in_training) + len(AUTHORS["xbrl_tags"])
    for number, example in enumerate(changed):
        turn = number % turns - 1 - len(instruction.in_training)
        if turn >= 0:
            assert example.context.startswith(AUTHORS["xbrl_tags"][turn])
            assert example.target == asked[number].target


@pytest.mark.parametrize("task", EMBEDDED.tasks)
def test_training_questions_take_turns_between_wordings(task: str):
    asked = EMBEDDED.examples(task, "train")[:40]
    changed = in_training_wordings(asked)
    assert changed == in_training_wordings(asked)
    instruction = next(one for one in INSTRUCTIONS if re.search(one.pattern, asked[0].context))
    turns = len(instruction.in_training) + 1
    for number, (before, after) in enumerate(zip(asked, changed, strict=True)):
        assert (before.target, before.group) == (after.target, after.group)
        assert (before == after) == (number % turns == 0)
        # All that is not instruction stays: every number and every tag.
        for token in before.context.split():
            if token[0].isdigit() or token.startswith("<us-gaap:"):
                assert token.rstrip(".") in after.context
        assert reworded(before.context) != after.context


def test_a_question_with_an_unknown_instruction_keeps_its_words():
    asked = [Example("Sing a song about bonds.", "la")] * 3
    assert in_training_wordings(asked) == asked


def test_an_unknown_instruction_is_refused():
    with pytest.raises(FinLoraError, match="No rewording is known for a prompt that begins with 'Sing"):
        reworded("Sing a song about bonds.")


def test_options_are_listed_backwards_and_nothing_else_changes():
    asked = "Please choose an answer from {negative/neutral/positive}.\nInput: a/b {c}\nAnswer:"
    assert with_options_backwards(asked) == asked.replace(
        "negative/neutral/positive", "positive/neutral/negative"
    )
    assert with_options_backwards("no options") == "no options"


def test_batches_of_mixed_tasks_ask_the_questions_as_they_are():
    assert WAYS["mixed_batches"]("question") == WAYS[""]("question") == "question"


def test_as_many_solved_examples_as_fit(tiny_tokenizer: PreTrainedTokenizerFast):
    solved = [Example(f"question {number}:", "answer") for number in range(10)]
    contexts = ["short:", "a much longer question, so that less fits before it:"]
    shown = with_examples(contexts, solved, tiny_tokenizer, shots=3, limit=90, seed=1)
    assert shown[0].endswith(contexts[0])
    assert shown[0].count(": answer\n\n") == 3
    assert shown[1].count(": answer\n\n") == 1
    assert all(len(ids) <= 90 for ids in encode_prompts(tiny_tokenizer, shown))
    assert shown == with_examples(contexts, solved, tiny_tokenizer, shots=3, limit=90, seed=1)
    assert shown != with_examples(contexts, solved, tiny_tokenizer, shots=3, limit=90, seed=2)
