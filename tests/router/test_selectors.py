"""Rules that choose one expert for a whole question."""

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from finlora.experts.base_model import Base
from finlora.experts.errors import FinLoraError
from finlora.router.selectors import SELECTORS, Classifier, RandomSelector, Retrieval, Selector

QUESTIONS = {
    "tags": "Which tag has {}? Answer with the tag.",
    "values": "What is the value of {}? A NUMBER, PLEASE.",
    "moods": "((( {} ))) good or bad news!!!",
}
LEARNED = [name for name in SELECTORS if name != "random"]


def prompts(expert: str, first: int, count: int) -> list[str]:
    """Questions with the wording of one expert about different things."""
    return [
        QUESTIONS[expert].format(f"Acme {number * 7919 % 1000}") for number in range(first, first + count)
    ]


class Vectors:
    """Features that are written in the prompt itself: `1.0 2.0`."""

    def fit_transform(self, texts: Sequence[str], /) -> np.ndarray:
        """The numbers."""
        return self.transform(texts)

    def transform(self, texts: Sequence[str], /) -> np.ndarray:
        """The numbers."""
        return np.array([[float(number) for number in text.split()] for text in texts], dtype=np.float32)


def written(vectors: np.ndarray) -> list[str]:
    return [" ".join(map(str, vector)) for vector in vectors]


@pytest.fixture
def make_selector(make_base: Callable[..., Base]) -> Callable[[str], Selector]:
    return lambda name: SELECTORS[name](make_base, 0)


@pytest.mark.parametrize("name", LEARNED)
def test_prompts_that_differ_clearly_are_told_apart(
    name: str, make_selector: Callable[[str], Selector]
) -> None:
    selector = make_selector(name)
    selector.fit({expert: prompts(expert, 0, 12) for expert in QUESTIONS})
    for expert in QUESTIONS:
        choices = selector.choose(prompts(expert, 100, 5))
        assert [choice.expert for choice in choices] == [expert] * 5
        assert all(0.5 < choice.confidence <= 1.00001 for choice in choices)


@pytest.mark.parametrize("name", SELECTORS)
def test_an_expert_that_is_left_out_is_never_chosen(
    name: str, make_selector: Callable[[str], Selector]
) -> None:
    selector = make_selector(name)
    selector.fit({expert: prompts(expert, 0, 6) for expert in ("moods", "values")})
    choices = selector.choose([*prompts("tags", 0, 20), *prompts("moods", 50, 5)])
    assert {choice.expert for choice in choices} <= {"moods", "values"}
    if name != "random":
        assert {choice.expert for choice in choices[20:]} == {"moods"}


@pytest.mark.parametrize("name", SELECTORS)
def test_a_choice_does_not_depend_on_the_other_prompts(
    name: str, make_selector: Callable[[str], Selector]
) -> None:
    selector = make_selector(name)
    selector.fit({expert: prompts(expert, 0, 6) for expert in QUESTIONS})
    asked = [prompt for expert in QUESTIONS for prompt in prompts(expert, 70, 3)]
    together = selector.choose(asked)
    alone = [selector.choose([prompt])[0] for prompt in asked]
    assert [choice.expert for choice in alone] == [choice.expert for choice in together]
    for one, other in zip(alone, together, strict=True):
        assert one.confidence == pytest.approx(other.confidence, abs=1e-4)


def test_retrieval_goes_by_the_angle_to_the_nearest_prompt() -> None:
    retrieval = Retrieval(Vectors())
    retrieval.fit({"flat": ["1 0", "-1 0"], "steep": ["30 30", "0 -1"]})
    flat, steep = retrieval.choose(["1 0.2", "1 0.9"])
    assert (flat.expert, steep.expert) == ("flat", "steep")
    assert flat.confidence == pytest.approx(1 / 1.04**0.5)
    assert steep.confidence == pytest.approx(1.9 / (2 * 1.81) ** 0.5)


def test_the_classifier_sees_features_of_any_scale() -> None:
    generator = np.random.default_rng(0)
    noise = generator.normal(scale=1e4, size=(80, 1))
    sign = np.repeat([-1.0, 1.0], 40)[:, None]
    texts = written(np.hstack([sign * 1e-4, noise]))
    classifier = Classifier(Vectors(), seed=0)
    classifier.fit({"low": texts[:30], "high": texts[40:70]})
    chosen = [choice.expert for choice in classifier.choose(texts[30:40] + texts[70:])]
    assert chosen == ["low"] * 10 + ["high"] * 10


def test_the_classifier_is_unsure_where_there_is_nothing_to_learn() -> None:
    texts = written(np.random.default_rng(0).normal(size=(60, 20)))
    classifier = Classifier(Vectors(), seed=0)
    classifier.fit({"heads": texts[:20], "tails": texts[20:40]})
    assert all(choice.confidence < 0.6 for choice in classifier.choose(texts[40:]))


def test_an_expert_with_few_prompts_counts_as_much_as_one_with_many() -> None:
    generator = np.random.default_rng(0)
    texts = written(generator.normal(size=(404, 1)))
    classifier = Classifier(Vectors(), seed=0)
    classifier.fit({"many": texts[:400], "few": texts[400:]})
    assert all(choice.confidence < 0.75 for choice in classifier.choose(texts[:50]))


def test_random_draws_every_expert_alike_and_the_same_for_the_same_seed() -> None:
    asked = [f"question {number}" for number in range(3000)]
    by_seed = []
    for seed in (0, 0, 1):
        selector = RandomSelector(seed)
        selector.fit({expert: [] for expert in QUESTIONS})
        by_seed.append([choice.expert for choice in selector.choose(asked)])
    assert by_seed[0] == by_seed[1] != by_seed[2]
    # Five standard deviations of a binomial around 1000.
    assert all(abs(count - 1000) < 130 for count in Counter(by_seed[0]).values())


@pytest.mark.parametrize(
    ("name", "given", "fault"),
    [
        ("random", {"tags": ["a"]}, "between two or more experts; given: tags"),
        ("tfidf_classifier", {}, "given: none"),
        ("retrieval", {"tags": ["a"], "values": []}, "values has 0 training prompts, .* needs 1 or more"),
        ("tfidf_classifier", {"tags": ["a"], "values": ["b", "c"]}, "tags has 1 .* needs 2 or more"),
    ],
)
def test_too_little_to_learn_from_is_refused(
    name: str, given: dict[str, list[str]], fault: str, make_selector: Callable[[str], Selector]
) -> None:
    with pytest.raises(FinLoraError, match=fault):
        make_selector(name).fit(given)
