"""The scalings of every token of questions, as a mixture reads them with their right answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ...experts.encoding import Encoded, encode_examples, token_limit
from ...experts.errors import FinLoraError
from ...experts.tasks import Example
from ...moe.mixture import MixtureForCausalLM
from ..routing import run_batch

_BATCH_SIZE = 8


@dataclass(frozen=True)
class TokenScalings:
    """How much of each expert every token of one question gets.

    Attributes:
        tokens: The tokens as text; joined they are the question and its answer.
        scalings: For every adapted linear layer, or one for all.
        predicts_answer: Whether the next token, which the scalings of a token act on, is one of the answer.
    """

    tokens: tuple[str, ...]
    scalings: Float[Tensor, "token module expert"]
    predicts_answer: Bool[Tensor, " token"]


def read_scalings(mixture: MixtureForCausalLM, examples: Sequence[Example]) -> Iterator[TokenScalings]:
    """Read the scalings of each question that fits the base, in the order of the questions.

    Args:
        mixture: A mixture with any router whose scalings are not negative.
        examples: Questions with their answers, which are read along.

    Raises:
        FinLoraError: Scalings are negative, so that they are no shares, or no question fits the base.
    """
    limit = token_limit(mixture.config)
    fitting = [
        one for one in encode_examples(mixture.origin.tokenizer, examples) if len(one.input_ids) <= limit
    ]
    if not fitting:
        raise FinLoraError(
            f"None of {len(examples)} questions fits the {limit} tokens of the base; give shorter ones."
        )
    for start in range(0, len(fitting), _BATCH_SIZE):
        yield from _read_batch(mixture, fitting[start : start + _BATCH_SIZE])


def layer_names(mixture: MixtureForCausalLM, module_count: int) -> tuple[str, ...]:
    """Names for the module axis of scalings.

    Args:
        mixture: Where they come from.
        module_count: Length of the axis: 1 where all layers share their scalings.
    """
    return mixture.bank.module_names if module_count > 1 else ("all layers",)


def _read_batch(mixture: MixtureForCausalLM, encoded: Sequence[Encoded]) -> Iterator[TokenScalings]:
    batch, scalings = run_batch(mixture, encoded)
    scalings = scalings.cpu().expand(*batch["input_ids"].shape, -1, -1)
    if bool((scalings < 0).any()):
        raise FinLoraError(
            "This router gives negative scalings, which are no shares of experts; use one with a softmax."
        )
    for one, rows in zip(encoded, scalings, strict=True):
        ahead = torch.tensor([*one.completion_mask[1:], 0], dtype=torch.bool)
        texts = tuple(str(mixture.origin.tokenizer.decode([token])) for token in one.input_ids)
        yield TokenScalings(texts, rows[: len(one.input_ids)], ahead)
