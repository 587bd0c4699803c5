"""Rules that choose one expert for a whole question, from its prompt alone.

The cheap rivals of a router that mixes experts token by token. They learn from prompts and the names of
their tasks; the experts themselves, and right answers, are not needed. An expert whose prompts are left out
of `fit` is never chosen, so what happens without it can be asked.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from sklearn.linear_model import LogisticRegressionCV
from sklearn.metrics.pairwise import cosine_similarity
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ..experts.base_model import Base
from ..experts.errors import FinLoraError
from .prompt_features import HiddenStateFeatures, PromptFeatures, tfidf_features

FOLDS = 5
INVERSE_STRENGTHS = tuple(10.0**exponent for exponent in range(-4, 5))
"""Values of scikit-learn's C that cross-validation chooses from."""
ITERATIONS = 1000


@dataclass(frozen=True)
class Choice:
    """The expert that is to answer a question.

    Attributes:
        expert: Its name.
        confidence: How sure the rule is, in its own measure: a cosine similarity or a probability.
    """

    expert: str
    confidence: float


@runtime_checkable
class Selector(Protocol):
    """A rule that chooses."""

    def fit(self, prompts: Mapping[str, Sequence[str]]) -> None:
        """Learn which prompts belong to which expert.

        Args:
            prompts: Training prompts by expert.

        Raises:
            FinLoraError: There are fewer than two experts, or too few prompts.
        """
        ...

    def choose(self, prompts: Sequence[str]) -> list[Choice]:
        """Choose an expert for each prompt, out of those of `fit`; does not depend on the other prompts."""
        ...


class Retrieval:
    """The expert of the training prompt with the highest cosine similarity.

    After the retrieval baseline of PHATGOOSE (Muqeeth et al. 2024, arXiv:2402.05859), which stores sentence
    embeddings of each expert's training data.

    Args:
        features: What is compared.
    """

    def __init__(self, features: PromptFeatures) -> None:
        self._features = features

    def fit(self, prompts: Mapping[str, Sequence[str]]) -> None:
        """Store the vectors of the training prompts."""
        texts, self._experts = _labelled(prompts, at_least=1)
        self._stored = self._features.fit_transform(texts)

    def choose(self, prompts: Sequence[str]) -> list[Choice]:
        """Choose by the nearest stored prompt; its cosine similarity is the confidence."""
        similarities = cosine_similarity(self._features.transform(prompts), self._stored)
        return [
            Choice(self._experts[index], float(row[index]))
            for row, index in zip(similarities, similarities.argmax(axis=1), strict=True)
        ]


class Classifier:
    """Multinomial logistic regression with L2 penalty, all experts weighing alike.

    The strength of the penalty is the one with the best likelihood in cross-validation over the training
    prompts. Dense features are standardised; rows of TF-IDF have one scale already.

    Args:
        features: What is classified.
        seed: Seed of the folds.
    """

    def __init__(self, features: PromptFeatures, *, seed: int) -> None:
        self._features = features
        self._seed = seed

    def fit(self, prompts: Mapping[str, Sequence[str]]) -> None:
        """Fit the regression, with two training prompts of each expert or more."""
        texts, experts = _labelled(prompts, at_least=2)
        folds = min(FOLDS, *(len(own) for own in prompts.values()))
        # Pyright infers the types of scikit-learn's parameters from their defaults.
        regression = LogisticRegressionCV(
            Cs=INVERSE_STRENGTHS,  # pyright: ignore[reportArgumentType]
            l1_ratios=(0.0,),  # pyright: ignore[reportArgumentType]
            cv=StratifiedKFold(folds, shuffle=True, random_state=self._seed),
            scoring="neg_log_loss",
            class_weight="balanced",
            max_iter=ITERATIONS,
            use_legacy_attributes=False,  # pyright: ignore[reportArgumentType]
        )
        vectors = self._features.fit_transform(texts).astype(np.float64)
        scaling = [StandardScaler()] if isinstance(vectors, np.ndarray) else []
        self._model = make_pipeline(*scaling, regression).fit(vectors, experts)

    def choose(self, prompts: Sequence[str]) -> list[Choice]:
        """Choose the most probable expert; its probability is the confidence."""
        probabilities = self._model.predict_proba(self._features.transform(prompts).astype(np.float64))
        return [
            Choice(str(self._model.classes_[index]), float(row[index]))
            for row, index in zip(probabilities, probabilities.argmax(axis=1), strict=True)
        ]


class RandomSelector:
    """Any expert, drawn for each prompt.

    Args:
        seed: Determines, with the prompt, the draw.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def fit(self, prompts: Mapping[str, Sequence[str]]) -> None:
        """Note which experts there are."""
        _labelled(prompts, at_least=0)
        self._experts = list(prompts)

    def choose(self, prompts: Sequence[str]) -> list[Choice]:
        """Draw; the confidence is the chance of each expert."""
        return [
            Choice(random.Random(f"{self._seed} {prompt}").choice(self._experts), 1 / len(self._experts))
            for prompt in prompts
        ]


SELECTORS: dict[str, Callable[[Callable[[], Base], int], Selector]] = {
    "retrieval": lambda base, seed: Retrieval(HiddenStateFeatures(base())),
    "classifier": lambda base, seed: Classifier(HiddenStateFeatures(base()), seed=seed),
    "tfidf_retrieval": lambda base, seed: Retrieval(tfidf_features()),
    "tfidf_classifier": lambda base, seed: Classifier(tfidf_features(), seed=seed),
    "random": lambda base, seed: RandomSelector(seed),
}
"""Makers of all rules, from a loader of the base, called only where it is read, and a seed."""


def _labelled(prompts: Mapping[str, Sequence[str]], *, at_least: int) -> tuple[list[str], list[str]]:
    """Return all prompts in one list, and in another the expert of each."""
    if len(prompts) < 2:
        raise FinLoraError(
            f"A rule chooses between two or more experts; given: {', '.join(prompts) or 'none'}."
        )
    for expert, own in prompts.items():
        if len(own) < at_least:
            raise FinLoraError(
                f"{expert} has {len(own)} training prompts, and this rule needs {at_least} or more of each "
                "expert; give more, or leave the expert out."
            )
    pairs = [(prompt, expert) for expert, own in prompts.items() for prompt in own]
    return [prompt for prompt, _ in pairs], [expert for _, expert in pairs]
