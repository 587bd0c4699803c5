"""Answers that must be JSON, or fit a JSON schema: llguidance says which tokens may come next.

What of JSON schema is supported is llguidance's: a keyword that it does not know is refused, not passed over.
"""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool
from llguidance import LLMatcher
from torch import Tensor

from ..requests import InvalidRequestError
from .openai_requests import ResponseFormat
from .token_text import Vocabulary

ANY_OBJECT = {"type": "object"}


class GrammarConstraint:
    """What one answer may go on with; a `TokenConstraint`."""

    def __init__(self, matcher: LLMatcher, *, size: int, end_ids: Sequence[int]):
        """Begin an answer.

        Args:
            matcher: Compiled for the answer's grammar, at its beginning.
            size: Tokens that the base gives logits for.
            end_ids: Tokens that end an answer.
        """
        self._matcher, self._size, self._end_ids = matcher, size, end_ids

    def allowed(self) -> Bool[Tensor, " vocabulary"]:
        """Return which tokens may come next; at the grammar's end only those that end the answer."""
        if self._matcher.is_stopped():
            mask = torch.zeros(self._size, dtype=torch.bool)
            mask[list(self._end_ids)] = True
            return mask
        bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        return torch.from_numpy(np.unpackbits(bits, bitorder="little")[: self._size].astype(bool))

    def accept(self, token: int) -> None:
        """Take note of the token that came; a grammar that gives up over it lets nothing follow."""
        if not self._matcher.is_stopped():
            self._matcher.consume_token(token)


def compile_format(
    wanted: ResponseFormat | None, vocabulary: Vocabulary, *, schema_limit: int
) -> GrammarConstraint | None:
    """Return what an answer in this format may go on with; None allows everything.

    Args:
        wanted: The request's `response_format`.
        vocabulary: The base's tokens.
        schema_limit: Most characters of a schema.

    Raises:
        InvalidRequestError: If the schema is too long, is wrong, or has keywords that are not supported.
    """
    if wanted is None or wanted.type == "text":
        return None
    schema: dict[str, Any] = ANY_OBJECT
    if wanted.json_schema is not None and wanted.json_schema.schema_ is not None:
        schema = wanted.json_schema.schema_
    if not vocabulary.end_ids:
        raise InvalidRequestError(
            "constraint", "The base has no token that ends an answer, which JSON needs."
        )
    text = json.dumps(schema)
    if len(text) > schema_limit:
        raise InvalidRequestError(
            "constraint",
            f"The JSON schema has {len(text):,} characters; at most {schema_limit:,} are allowed.",
        )
    try:
        grammar = LLMatcher.grammar_from_json_schema(text)
    except ValueError as error:
        raise _refusal(str(error)) from error
    matcher = LLMatcher(vocabulary.grammar_tokenizer, grammar, log_level=0)
    if matcher.is_error():
        raise _refusal(matcher.get_error())
    return GrammarConstraint(matcher, size=vocabulary.size, end_ids=vocabulary.end_ids)


def _refusal(reason: str) -> InvalidRequestError:
    first = reason.strip().splitlines()[0] if reason.strip() else "no reason was given"
    return InvalidRequestError("constraint", f"The JSON schema cannot be followed: {first}.")
