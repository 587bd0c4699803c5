"""Prompts as vectors: what they are, and that nothing else in a batch changes them."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from finlora.experts.base_model import Base
from finlora.experts.encoding import encode_prompt
from finlora.router.prompt_features import HiddenStateFeatures, tfidf_features

PROMPTS = [
    "short",
    "a prompt of some length",
    "x",
    "another prompt, which is by far the longest " * 3,
    "mid one",
]


def test_a_vector_is_the_mean_of_the_final_hidden_states(make_base: Callable[..., Base]) -> None:
    base = make_base()
    vectors = HiddenStateFeatures(base).transform(PROMPTS)
    assert vectors.shape == (len(PROMPTS), 32)
    assert vectors.dtype == np.float32
    for prompt, vector in zip(PROMPTS, vectors, strict=True):
        ids = torch.tensor([encode_prompt(base.tokenizer, prompt)])
        hidden = base.model(input_ids=ids, output_hidden_states=True).hidden_states[-1]
        np.testing.assert_allclose(vector, hidden[0].mean(dim=0).numpy(), atol=1e-5)


def test_a_vector_does_not_depend_on_its_batch(make_base: Callable[..., Base]) -> None:
    base = make_base()
    together = HiddenStateFeatures(base, batch_size=len(PROMPTS)).transform(PROMPTS)
    in_threes = HiddenStateFeatures(base, batch_size=3).transform(PROMPTS[::-1])[::-1]
    alone = np.concatenate([HiddenStateFeatures(base).transform([prompt]) for prompt in PROMPTS])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    np.testing.assert_allclose(in_threes, alone, atol=1e-5)
    assert np.abs(together[0] - together[1]).max() > 1e-2


def test_a_prompt_is_run_once(make_base: Callable[..., Base]) -> None:
    base = make_base()
    rows: list[int] = []
    base.model.base_model.register_forward_hook(
        lambda module, args, kwargs, output: rows.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    features = HiddenStateFeatures(base)
    first = features.fit_transform(["one", "two", "one"])
    again = features.transform(["two", "three"])
    assert sum(rows) == 3
    assert (first[0] == first[2]).all()
    assert (again[0] == first[1]).all()


def test_of_a_prompt_that_is_too_long_the_tokens_that_fit_are_read(make_base: Callable[..., Base]) -> None:
    base = make_base(max_position_embeddings=16)
    features = HiddenStateFeatures(base)
    fitting = "a" * 15  # and one token for the beginning
    np.testing.assert_allclose(
        features.transform([fitting + "tail" * 9])[0], features.transform([fitting])[0], atol=1e-5
    )


@pytest.mark.parametrize("prompt", ["?", "a", "…"])
def test_every_prompt_has_words(prompt: str) -> None:
    vectors = tfidf_features().fit_transform([prompt, "Revenue of Acme?"]).toarray()
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0)
