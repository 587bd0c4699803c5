"""Prompts as vectors, for rules that choose one expert for a whole question.

Two kinds: hidden states of the frozen base, and counts of words, which need no neural network. Both have the
two methods of scikit-learn's transformers.
"""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from sklearn.feature_extraction.text import TfidfVectorizer
from tqdm import tqdm

from ..experts.base_model import Base
from ..experts.encoding import Encoded, collate, encode_prompts, token_limit

WORDS = r"(?u)\w+|[^\w\s]+"
"""Words, and what stands between them: no prompt is without one."""


@runtime_checkable
class PromptFeatures(Protocol):
    """Turns prompts into vectors: (prompt, feature), dense or a sparse matrix of SciPy."""

    def fit_transform(self, prompts: Sequence[str], /) -> Any:
        """Learn what there is to learn from these prompts, and return their vectors."""
        ...

    def transform(self, prompts: Sequence[str], /) -> Any:
        """Return the vectors of further prompts."""
        ...


class HiddenStateFeatures:
    """The base's final hidden states, averaged over the tokens of a prompt.

    Every prompt is run once, however many rules read it. Of a prompt that is too long for the base, the
    tokens that fit are read: nobody answers it, but a rule must choose.

    Args:
        base: The frozen base; it learns nothing here.
        batch_size: Most prompts run at once.
    """

    def __init__(self, base: Base, *, batch_size: int = 32) -> None:
        self._base = base
        self._batch_size = batch_size
        self._known: dict[str, Float[np.ndarray, " d_model"]] = {}

    def fit_transform(self, prompts: Sequence[str], /) -> Float[np.ndarray, "prompt d_model"]:
        """Return the vectors of prompts, as `transform` does."""
        return self.transform(prompts)

    def transform(self, prompts: Sequence[str], /) -> Float[np.ndarray, "prompt d_model"]:
        """Return the vectors of prompts in float32; they do not depend on which are run together."""
        new = [prompt for prompt in dict.fromkeys(prompts) if prompt not in self._known]
        limit = token_limit(self._base.model.config)
        tokens = [ids[:limit] for ids in encode_prompts(self._base.tokenizer, new)]
        order = sorted(range(len(new)), key=lambda index: -len(tokens[index]))
        with tqdm(total=len(new), desc="prompts", unit="prompt", disable=None) as bar:
            for start in range(0, len(order), self._batch_size):
                batch = order[start : start + self._batch_size]
                means = self._means([tokens[index] for index in batch])
                self._known.update((new[index], mean) for index, mean in zip(batch, means, strict=True))
                bar.update(len(batch))
        return np.stack([self._known[prompt] for prompt in prompts])

    @torch.no_grad()
    def _means(self, rows: Sequence[list[int]]) -> Float[np.ndarray, "prompt d_model"]:
        model = self._base.model
        batch = collate([Encoded(row, [0] * len(row)) for row in rows], pad_id=0)
        mask = batch["attention_mask"].to(model.device)
        output = model.base_model(
            input_ids=batch["input_ids"].to(model.device), attention_mask=mask, use_cache=False
        )
        hidden = output.last_hidden_state.float().masked_fill(mask.unsqueeze(-1) == 0, 0.0)
        return (hidden.sum(dim=1) / mask.sum(dim=1, keepdim=True)).cpu().numpy()


def tfidf_features() -> TfidfVectorizer:
    """Return counts of words, logarithmic, weighted by how rare they are, as rows of length 1 (TF-IDF)."""
    return TfidfVectorizer(token_pattern=WORDS, sublinear_tf=True)
