"""Endless training batches: invented documents and filing paragraphs, encoded, weighted and packed into rows."""

import random
from collections.abc import Iterator

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from .corpus import Document, invented_document

_FILING_WEIGHT = 0.5
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

    def draw(self, rows: int, length: int) -> tuple[Tensor, Tensor]:
        """Return token ids and loss weights, each `(rows, length)`; documents are cut at the end of a row."""
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
        if self.random.random() >= self.filing_share:
            return invented_document(self.random)
        start = self.random.randrange(len(self.paragraphs))
        text = " ".join(self.paragraphs[start : start + 3])
        skip = self.random.randint(0, len(text) // 2)
        return [(text[skip : skip + 600], _FILING_WEIGHT)]

    def _encode(self, document: Document) -> Iterator[tuple[int, float]]:
        yield self.tokenizer.bos_token_id, 0.0
        for text, weight in document:
            for token in self._ids(text):
                yield token, weight
        yield self.tokenizer.eos_token_id, 0.1

    def _ids(self, text: str) -> list[int]:
        if text not in self.cache:
            if len(self.cache) > 50_000:
                self.cache.clear()
            self.cache[text] = self.tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids
        return self.cache[text]
