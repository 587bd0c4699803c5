"""Mode draft gives the tokens of exact, and their distribution where tokens are sampled."""

import itertools

import pytest
import torch
from scipy.stats import chisquare
from transformers import LlamaConfig, LlamaForCausalLM, TextStreamer

from finlora.experts.base_model import Base
from finlora.moe.decoding.prompt_lookup import PromptLookup
from finlora.moe.mixture import MixtureForCausalLM
from finlora.moe.mode import Mode

DRAFT = Mode(name="draft")


def drafting(exact: MixtureForCausalLM) -> MixtureForCausalLM:
    """The same mixture in mode draft."""
    return MixtureForCausalLM.build(exact.origin, exact.bank, exact.router, DRAFT)


def soften(mixture: MixtureForCausalLM) -> MixtureForCausalLM:
    """Weaken the experts, so that base and mixture agree on many tokens and not on all."""
    for name, matrix in mixture.bank.named_parameters():
        if ".ups." in name:
            matrix.data *= 0.15
    return mixture


def repeating_prompts(count: int) -> torch.Tensor:
    """Prompts of few different tokens, so that text is found again."""
    return torch.randint(3, 30, (count, 14), generator=torch.Generator().manual_seed(3))


def test_greedy_tokens_of_500_prompts_equal_exact(make_base, make_mixture) -> None:
    exact = soften(make_mixture(make_base(), context_width=12))
    draft = drafting(exact)
    tokens = passes = accepted = 0
    for prompts in repeating_prompts(500).split(50):
        settings = {"attention_mask": torch.ones_like(prompts), "max_new_tokens": 12}
        wanted = exact.generate(input_ids=prompts, **settings)
        assert torch.equal(draft.generate(input_ids=prompts, **settings), wanted)
        tokens, passes = tokens + draft.last_draft.tokens, passes + draft.last_draft.passes
        accepted += draft.last_draft.accepted
    assert 0.1 < accepted / tokens < 0.9, "agreement must be neither certain nor absent to test anything"


def test_single_prompts_take_fewer_passes_than_two_a_token(make_base, make_mixture) -> None:
    exact = soften(make_mixture(make_base()))
    draft = drafting(exact)
    counts = []
    for prompt in repeating_prompts(12).split(1):
        settings = {"attention_mask": torch.ones_like(prompt), "max_new_tokens": 20, "min_new_tokens": 20}
        wanted = exact.generate(input_ids=prompt, **settings)
        assert torch.equal(draft.generate(input_ids=prompt, **settings), wanted)
        counts.append(draft.last_draft)
    assert all(one.tokens == 19 for one in counts)
    assert all(one.passes <= 2 * one.tokens for one in counts)
    assert sum(one.passes for one in counts) < 1.9 * sum(one.tokens for one in counts)


@pytest.mark.parametrize(
    "settings",
    [
        {"repetition_penalty": 1.7},
        {"no_repeat_ngram_size": 2},
        {"suppress_tokens": [7, 8]},
        {"eos_token_id": list(range(3, 90))},
    ],
    ids=["penalty", "n-grams", "suppressed", "early ends"],
)
def test_generation_settings_act_as_in_exact(make_base, make_mixture, settings) -> None:
    exact = soften(make_mixture(make_base()))
    prompts = repeating_prompts(12)
    settings |= {"attention_mask": torch.ones_like(prompts), "max_new_tokens": 10, "pad_token_id": 2}
    wanted = exact.generate(input_ids=prompts, **settings)
    assert torch.equal(drafting(exact).generate(input_ids=prompts, **settings), wanted)


def test_tokens_are_streamed_in_order(make_base, make_mixture, tiny_tokenizer) -> None:
    exact = soften(make_mixture(make_base()))
    prompt = repeating_prompts(1)
    seen: list[int] = []

    class Recorder(TextStreamer):
        def put(self, value: torch.Tensor) -> None:
            seen.extend(value.flatten().tolist())

        def end(self) -> None:
            seen.append(-1)

    settings = {"attention_mask": torch.ones_like(prompt), "max_new_tokens": 8}
    made = drafting(exact).generate(input_ids=prompt, streamer=Recorder(tiny_tokenizer), **settings)
    assert seen == [*made[0].tolist(), -1]


def test_what_needs_exact_runs_as_exact(make_base, make_mixture) -> None:
    exact = make_mixture(make_base())
    draft = drafting(exact)
    prompts = repeating_prompts(2)
    for settings in ({"num_beams": 2}, {"output_scores": True, "return_dict_in_generate": True}):
        settings |= {"attention_mask": torch.ones_like(prompts), "max_new_tokens": 5}
        wanted, made = (one.generate(input_ids=prompts, **settings) for one in (exact, draft))
        if isinstance(wanted, torch.Tensor):
            assert torch.equal(made, wanted)
        else:
            assert torch.equal(made.sequences, wanted.sequences)
            assert len(made.scores) == len(wanted.scores)


@pytest.fixture
def small_vocabulary(tiny_tokenizer) -> Base:
    """A base with seven tokens, whose probabilities can be counted out."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        config = LlamaConfig(
            vocab_size=7,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=64,
            initializer_range=0.2,
        )
        model = LlamaForCausalLM(config)
    return Base(model.requires_grad_(False).eval(), tiny_tokenizer, "seven", "revision-1", "none")


@pytest.mark.parametrize("settings", [{}, {"temperature": 0.7, "top_k": 4}], ids=["plain", "warped"])
def test_sampling_keeps_the_distribution_of_exact(small_vocabulary, make_mixture, settings) -> None:
    exact = make_mixture(small_vocabulary)
    draft = drafting(exact)
    prompt, count, length = torch.tensor([[3, 4, 5, 3, 4]]), 3000, 3
    continuations = torch.tensor(list(itertools.product(range(7), repeat=length)))
    texts = torch.cat([prompt.expand(len(continuations), -1), continuations], dim=1)
    with torch.no_grad():
        logits = exact(texts).logits[:, prompt.shape[1] - 1 : -1] / settings.get("temperature", 1.0)
    if "top_k" in settings:
        logits = logits.masked_fill(logits < logits.topk(settings["top_k"]).values[..., -1:], float("-inf"))
    chances = logits.double().softmax(-1).gather(-1, continuations[..., None])[..., 0].prod(-1)

    torch.manual_seed(0)
    rows = prompt.expand(count, -1)
    made = draft.generate(
        input_ids=rows,
        attention_mask=torch.ones_like(rows),
        do_sample=True,
        max_new_tokens=length,
        eos_token_id=None,
        **({"top_k": 0} | settings),
    )[:, prompt.shape[1] :]
    drawn = torch.bincount((made * torch.tensor([49, 7, 1])).sum(-1), minlength=7**length).double()
    assert 0.05 < draft.last_draft.accepted / draft.last_draft.proposed < 0.95
    assert drawn[chances == 0].sum() == 0
    often = chances * count >= 5
    observed = torch.cat([drawn[often], drawn[~often].sum()[None]])
    expected = torch.cat([chances[often], chances[~often].sum()[None]]) * count
    kept = expected > 0
    assert chisquare(observed[kept], expected[kept]).pvalue > 0.01


def test_lookup_finds_the_newest_place() -> None:
    lookup = PromptLookup([1, 2, 3, 1, 2, 4, 1])
    assert lookup.follow([2], 3) == [4, 1]
    assert lookup.follow([], 3) == []
    lookup.extend([2])
    assert lookup.follow([], 2) == [4, 1]
    assert PromptLookup([1]).follow([], 2) == []
