"""How prompt and answer become token ids."""

import torch
from transformers import LlamaConfig

from finlora.experts.encoding import (
    Encoded,
    collate,
    encode_example,
    encode_examples,
    encode_prompt,
    pad_left,
    token_limit,
)
from finlora.experts.tasks.task import Example


def test_prompt_opens_with_bos_and_loses_trailing_blanks(tiny_tokenizer) -> None:
    ids = encode_prompt(tiny_tokenizer, "Revenue? \n")
    assert ids[0] == tiny_tokenizer.bos_token_id
    assert tiny_tokenizer.decode(ids[1:]) == "Revenue?"


def test_completion_is_blank_answer_and_end(tiny_tokenizer) -> None:
    encoded = encode_example(tiny_tokenizer, Example("Revenue?", "12"))
    prompt = encode_prompt(tiny_tokenizer, "Revenue?")
    assert encoded.input_ids[: len(prompt)] == prompt
    completion = encoded.input_ids[len(prompt) :]
    assert tiny_tokenizer.decode(completion[:-1]) == " 12"
    assert completion[-1] == tiny_tokenizer.eos_token_id
    assert encoded.completion_mask == [0] * len(prompt) + [1] * len(completion)


def test_labels_cover_the_completion_only(tiny_tokenizer) -> None:
    encoded = encode_example(tiny_tokenizer, Example("ab", "c"))
    assert encoded.labels == [-100, -100, -100, *encoded.input_ids[3:]]


def test_no_examples_give_no_rows(tiny_tokenizer) -> None:
    assert encode_examples(tiny_tokenizer, []) == []


def test_collate_pads_on_the_right_without_loss() -> None:
    batch = collate([Encoded([5, 6, 7], [0, 1, 1]), Encoded([8, 9], [0, 1])], pad_id=2)
    assert batch["input_ids"].tolist() == [[5, 6, 7], [8, 9, 2]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0]]
    assert batch["labels"].tolist() == [[-100, 6, 7], [-100, 9, -100]]


def test_pad_left_keeps_the_ends_aligned() -> None:
    assert torch.equal(pad_left([[1, 2, 3], [4]], 0), torch.tensor([[1, 2, 3], [0, 0, 4]]))


def test_limit_is_that_of_the_positions() -> None:
    assert token_limit(LlamaConfig(max_position_embeddings=77)) == 77
