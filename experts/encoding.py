"""From text to token ids and back to batches: the one place that knows how prompt and answer are joined.

    [BOS] prompt | " " + answer EOS

Prompt and completion are tokenized apart and then joined, so the ids of the prompt are the same in training
and in answering. Nothing is ever cut: what does not fit the base is reported by its index.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedTokenizerBase

from .tasks.task import Example

IGNORED_LABEL = -100
"""Label of tokens that carry no loss."""


@dataclass(frozen=True)
class Encoded:
    """Token ids of prompt and completion of one example."""

    input_ids: list[int]
    """Prompt, then completion, then end of sequence."""
    completion_mask: list[int]
    """1 where the token belongs to the completion, 0 in the prompt."""

    @property
    def labels(self) -> list[int]:
        """Token ids where there is loss, -100 elsewhere; not shifted."""
        pairs = zip(self.input_ids, self.completion_mask, strict=True)
        return [token if inside else IGNORED_LABEL for token, inside in pairs]


def token_limit(config: PretrainedConfig) -> int:
    """Return how many tokens, prompt and answer together, a base can hold."""
    return getattr(config.get_text_config(), "max_position_embeddings", None) or sys.maxsize


def encode_prompts(tokenizer: PreTrainedTokenizerBase, contexts: Sequence[str]) -> list[list[int]]:
    """Return the token ids of prompts, each opened by BOS if the tokenizer has one.

    Args:
        tokenizer: The base's tokenizer.
        contexts: Prompts; white space at their end is dropped, since the answer brings its own blank.
    """
    start: list[Any] = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    stripped = [context.rstrip() for context in contexts]
    return [start + ids for ids in _tokenize(tokenizer, stripped)]


def encode_prompt(tokenizer: PreTrainedTokenizerBase, context: str) -> list[int]:
    """Return the token ids of one prompt, as `encode_prompts` does."""
    return encode_prompts(tokenizer, [context])[0]


def encode_examples(tokenizer: PreTrainedTokenizerBase, examples: Sequence[Example]) -> list[Encoded]:
    """Return prompt and completion of every example as token ids, of any length."""
    prompts = encode_prompts(tokenizer, [example.context for example in examples])
    targets = _tokenize(tokenizer, [" " + example.target.strip() for example in examples])
    end: list[Any] = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    return [
        Encoded(prompt + target + end, [0] * len(prompt) + [1] * len(target + end))
        for prompt, target in zip(prompts, targets, strict=True)
    ]


def encode_example(tokenizer: PreTrainedTokenizerBase, example: Example) -> Encoded:
    """Return prompt and completion of one example as token ids."""
    return encode_examples(tokenizer, [example])[0]


def collate(encoded: Sequence[Encoded], pad_id: int) -> dict[str, Tensor]:
    """Return one right-padded batch.

    Args:
        encoded: Examples of the batch.
        pad_id: Token id that fills the rows up; it is masked and carries no loss.

    Returns:
        `input_ids`, `attention_mask` and `labels`, each of shape (batch, token); labels are -100 in prompt
        and padding.
    """
    return {
        "input_ids": _pad([example.input_ids for example in encoded], pad_id),
        "attention_mask": _pad([[1] * len(example.input_ids) for example in encoded], 0),
        "labels": _pad([example.labels for example in encoded], IGNORED_LABEL),
    }


def prompt_lengths(labels: Int[Tensor, "batch token"]) -> Int[Tensor, " batch"]:
    """Return how many columns stand before the first label of each row; 0 where a row has none."""
    return (labels != IGNORED_LABEL).int().argmax(dim=1)


def pad_left(rows: Sequence[Sequence[int]], value: int) -> Int[Tensor, "batch token"]:
    """Return rows of different lengths as one tensor, filled up at their left."""
    width = max(len(row) for row in rows)
    return torch.tensor([[value] * (width - len(row)) + list(row) for row in rows])


def _pad(rows: Sequence[Sequence[int]], value: int) -> Int[Tensor, "batch token"]:
    width = max(len(row) for row in rows)
    return torch.tensor([list(row) + [value] * (width - len(row)) for row in rows])


def _tokenize(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> list[list[int]]:
    if not texts:
        return []
    ids: Any = tokenizer(texts, add_special_tokens=False, return_attention_mask=False)["input_ids"]
    return ids
