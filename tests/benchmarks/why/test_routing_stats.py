"""Entropy, load and agreement of routers whose scalings are known."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from finlora.benchmarks.routing import mean_scalings
from finlora.benchmarks.why.explore import answer_prompt, answer_with_scalings
from finlora.benchmarks.why.read_scalings import read_scalings
from finlora.benchmarks.why.routing_stats import effective_number, entropy, routing_statistics
from finlora.experts.answering import answer
from finlora.experts.base_model import Base
from finlora.experts.errors import FinLoraError
from finlora.experts.tasks import Example
from finlora.moe.bank import ExpertBank
from finlora.moe.mixture import MixtureForCausalLM
from finlora.moe.routing import ConstantRouter, Router
from finlora.router import XLoRARouter, XLoRASettings

NAMES = ("finer", "headline", "sentiment")
QUESTIONS = {
    "headline": [Example("Up?", "Yes"), Example("Did it go down again?", "No")],
    "unseen": [Example("What is it?", "gold")],
}
MakeMixture = Callable[[Router], MixtureForCausalLM]


@pytest.fixture
def make_mixture(make_base: Callable[..., Base], make_expert: Callable[..., Path]) -> MakeMixture:
    """A maker of mixtures of three random experts, with the router that is given."""
    base = make_base()
    folders = {name: make_expert(name, seed=seed) for seed, name in enumerate(NAMES)}
    bank = ExpertBank.from_folders(folders, base)
    return lambda router: MixtureForCausalLM.build(base, bank, router)


def test_entropy_of_one_hot_and_of_uniform():
    assert entropy(torch.tensor([0.0, 1.0, 0.0])).item() == 0
    assert entropy(torch.full((5,), 0.2)).item() == pytest.approx(math.log(5))
    # Shares of their sum, so a common factor changes nothing; no weight at all is no spread.
    assert entropy(torch.tensor([[0.1, 0.1], [0.0, 0.0]])).tolist() == pytest.approx([math.log(2), 0])
    assert effective_number(torch.tensor([0.3, 0.3, 0.0])) == pytest.approx(2)


def test_a_one_hot_router(make_mixture: MakeMixture):
    headline, unseen = routing_statistics(make_mixture(ConstantRouter.one_hot(1, expert_count=3)), QUESTIONS)
    assert headline.experts == NAMES
    assert headline.layers == ("all layers",)
    # A byte is a token: " Yes" and " No", each with its end.
    assert headline.tokens == 5 + 4
    assert (headline.mean_entropy, headline.entropy_share) == (0, 0)
    assert headline.mean_load == [0, 1, 0]
    assert headline.effective_experts == pytest.approx(1)
    assert headline.mean_agreement == 1
    assert unseen.mean_agreement is None


def test_a_uniform_router(make_mixture: MakeMixture):
    (found, _) = routing_statistics(make_mixture(ConstantRouter.uniform(expert_count=3)), QUESTIONS)
    assert found.mean_entropy == pytest.approx(math.log(3))
    assert found.entropy_share == pytest.approx(1)
    assert found.effective_experts == pytest.approx(3)
    assert found.mean_agreement == pytest.approx(1 / 3)


def test_layers_are_kept_apart(make_mixture: MakeMixture):
    table = torch.tensor([[0.0, 1.0, 0.0]] * 4 + [[1.0, 0.0, 0.0]] * 5 + [[0.5, 0.5, 0.0]])
    mixture = make_mixture(ConstantRouter(table))
    (found, _) = routing_statistics(mixture, QUESTIONS)
    assert found.layers == mixture.bank.module_names
    assert found.agreement is not None
    assert found.agreement.tolist() == pytest.approx([1.0] * 4 + [0.0] * 5 + [0.5])
    assert found.entropy.tolist() == pytest.approx([0.0] * 9 + [math.log(2)])
    torch.testing.assert_close(found.load, table)
    assert found.mean_load == pytest.approx([0.55, 0.45, 0.0])


def learned(seed: int = 0) -> XLoRARouter:
    """A random router that looks at hidden states."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return XLoRARouter(XLoRASettings(temperature=0.05), d_model=32, module_count=10, expert_count=3)


def test_the_load_is_that_of_the_report(make_mixture: MakeMixture, make_base: Callable[..., Base]):
    mixture = make_mixture(learned())
    (found, _) = routing_statistics(mixture, QUESTIONS)
    expected = mean_scalings(mixture, mixture.origin.tokenizer, QUESTIONS["headline"])["answer"]
    assert found.mean_load == pytest.approx(expected, abs=1e-5)
    assert max(expected) - min(expected) > 0.02


def test_a_question_is_read_alone_as_in_a_batch(make_mixture: MakeMixture):
    mixture = make_mixture(learned())
    together = list(read_scalings(mixture, QUESTIONS["headline"]))
    for read, example in zip(together, QUESTIONS["headline"], strict=True):
        (alone,) = read_scalings(mixture, [example])
        torch.testing.assert_close(read.scalings, alone.scalings, atol=1e-5, rtol=1e-4)
        assert read.tokens == alone.tokens
        assert "".join(read.tokens) == f"<bos>{example.context} {example.target}<eos>"
        marked = [token for token, ahead in zip(read.tokens, read.predicts_answer, strict=True) if ahead]
        assert "".join(marked) == f"{example.context[-1]} {example.target}"


def test_negative_scalings_are_no_shares(make_mixture: MakeMixture):
    mixture = make_mixture(ConstantRouter([1.0, -0.5, 0.5]))
    with pytest.raises(FinLoraError, match="negative scalings"):
        routing_statistics(mixture, QUESTIONS)


def test_questions_that_do_not_fit_are_left_out(make_mixture: MakeMixture):
    mixture = make_mixture(ConstantRouter.uniform(expert_count=3))
    long = Example("x" * 600, "y")
    assert len(list(read_scalings(mixture, [long, *QUESTIONS["headline"]]))) == 2
    with pytest.raises(FinLoraError, match="None of 1 questions fits"):
        list(read_scalings(mixture, [long]))


def test_an_answer_with_its_scalings(make_mixture: MakeMixture):
    mixture = make_mixture(learned())
    answered = answer_prompt(mixture, "What is it?", max_new_tokens=6)
    tokenizer = mixture.origin.tokenizer
    assert [answered.text] == answer(mixture, tokenizer, ["What is it?"], max_new_tokens=6).texts
    assert sum(answered.mean_scalings) == pytest.approx(1, abs=1e-4)
    with pytest.raises(FinLoraError, match="empty"):
        answer_prompt(mixture, " ")
    with pytest.raises(FinLoraError, match="do not fit"):
        answer_prompt(mixture, "x" * 600)


def test_scalings_by_hand_replace_the_router(make_mixture: MakeMixture):
    mixture = make_mixture(learned())
    alone = make_mixture(ConstantRouter.one_hot(2, expert_count=3))
    tokenizer = mixture.origin.tokenizer
    for name, expected in (
        ({"sentiment": 1.0}, answer(alone, tokenizer, ["What is it?"], max_new_tokens=6).texts[0]),
        ({}, answer(mixture.base, tokenizer, ["What is it?"], max_new_tokens=6).texts[0]),
    ):
        assert answer_with_scalings(mixture, "What is it?", name, max_new_tokens=6) == expected
    with pytest.raises(FinLoraError, match="no expert nobody; the mixture has finer, headline, sentiment"):
        answer_with_scalings(mixture, "What is it?", {"nobody": 1.0})
