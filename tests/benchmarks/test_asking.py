"""Rewordings change the instruction and nothing that the answer depends on."""

import pytest
from transformers import PreTrainedTokenizerFast

from finlora.benchmarks.asking import WAYS, reworded, with_examples, with_options_backwards
from finlora.experts.encoding import encode_prompts
from finlora.experts.errors import FinLoraError
from finlora.experts.tasks import Example
from finlora.experts.tasks.suites import SUITES

EMBEDDED = SUITES["embedded"]


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
