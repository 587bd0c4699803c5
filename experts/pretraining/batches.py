"""Endless training batches: documents and filing paragraphs, encoded, weighted and packed into rows."""

import random
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from .corpus import first_stage_document, invented_document
from .look_ups import Document

_FILING_WEIGHT = 0.3
"""Weight of a token of filing prose; 1 is the weight of a number that can be looked up."""


class Batches:
    """Draws rows that depend only on the seed and on how many were drawn."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerFast, paragraphs: list[str], filing_share: float, seed: int
    ) -> None:
        self.tokenizer, self.paragraphs = tokenizer, paragraphs
        self.filing_share = filing_share if paragraphs else 0.0
        self.random = random.Random(seed)
        self.cache: dict[str, list[int]] = {}

    def draw(self, rows: int, length: int, *, first_stage: bool = False) -> tuple[Tensor, Tensor]:
        """Return token ids and loss weights, each `(rows, length)`; documents are cut at the end of a row.

        Args:
            rows: Sequences of the batch.
            length: Tokens of each.
            first_stage: Whether to draw only documents to look up and copy from, and to count only the
                answers: learning which words are frequent would wash the circuits of `initialization` away.
        """
        self.first_stage = first_stage
        drawn = [self._row(length) for _ in range(rows)]
        ids = torch.tensor([row[0] for row in drawn])
        return ids, torch.tensor([row[1] for row in drawn])

    def _row(self, length: int) -> tuple[list[int], list[float]]:
        ids: list[int] = []
        weights: list[float] = []
        while len(ids) < length:
            for token, weight in self._encode(self._document()):
                ids.append(token)
                weights.append(weight)
        return ids[:length], weights[:length]

    def _document(self) -> Document:
        if self.first_stage:
            document = first_stage_document(self.random)
            return [(text, weight if weight == 1.0 else 0.0) for text, weight in document]
        if self.random.random() >= self.filing_share:
            return invented_document(self.random)
        start = self.random.randrange(len(self.paragraphs))
        text = " ".join(self.paragraphs[start : start + 3])
        skip = self.random.randint(0, len(text) // 2)
        return [(text[skip : skip + 600], _FILING_WEIGHT)]

    def _encode(self, document: Document) -> Iterator[tuple[int, float]]:
        begin: Any = self.tokenizer.bos_token_id
        end: Any = self.tokenizer.eos_token_id
        yield begin, 0.0
        for text, weight in document:
            for token in self._ids(text):
                yield token, weight
        yield end, 0.0 if self.first_stage else 0.1

    def _ids(self, text: str) -> list[int]:
        if text not in self.cache:
            if len(self.cache) > 50_000:
                self.cache.clear()
            self.cache[text] = self.tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids
        return self.cache[text]
