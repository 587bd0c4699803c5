"""A router learns from labels alone, on stored hidden states, whose expert an example belongs to."""

import pytest
import torch

from finlora.experts.encoding import Encoded
from finlora.experts.errors import FinLoraError
from finlora.router.hidden_state_cache import HiddenStateCache
from finlora.router.label_warm_up import kept_tokens, label_losses, warm_up
from finlora.router.settings import RouterTrainingSettings, XLoRASettings
from finlora.router.xlora import XLoRARouter

WIDTH, TOKENS = 12, 60


def problem() -> tuple[list[Encoded], list[int], HiddenStateCache]:
    """Two tasks whose hidden states are told apart by the sign of a product, so a linear router fails."""
    generator = torch.Generator().manual_seed(0)
    tasks = [index % 2 for index in range(60)]
    states = []
    for task in tasks:
        hidden = torch.randn(TOKENS, WIDTH, generator=generator)
        hidden[:, 0] = hidden[:, 0].abs() * hidden[:, 1].sign() * (1 if task else -1)
        states.append(hidden)
    encoded = [Encoded(list(range(TOKENS)), [0] * 40 + [1] * 20) for _ in tasks]
    return encoded, tasks, HiddenStateCache(torch.cat(states), [TOKENS] * len(tasks))


def warmed_up(depth: int, steps: int, seed: int = 0) -> tuple[XLoRARouter, float]:
    encoded, tasks, cache = problem()
    torch.manual_seed(1)
    settings = XLoRASettings(depth=depth, width=32, dropout=0.0)
    router = XLoRARouter(settings, d_model=WIDTH, module_count=3, expert_count=2)
    warm_up(router, encoded, tasks, cache, RouterTrainingSettings(label_steps=steps, seed=seed))
    labels = torch.tensor(tasks).repeat_interleave(TOKENS)
    log_shares = router.logits(cache.states[None])[0].log_softmax(-1)
    return router, label_losses(log_shares, labels).mean().item()


def test_two_layers_learn_what_one_cannot() -> None:
    assert warmed_up(depth=2, steps=1000)[1] < 0.25
    assert warmed_up(depth=1, steps=300)[1] > 0.6


def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Causal attention over a whole batch, without a mixture."""
    return torch.nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)


@pytest.mark.parametrize(("context_width", "low", "high"), [(0, 0.6, 0.7), (4, 0.0, 0.1)])
def test_looking_back_finds_what_only_the_first_token_says(context_width, low, high) -> None:
    tasks = [index % 2 for index in range(32)]
    states = torch.randn(32, TOKENS, WIDTH, generator=torch.Generator().manual_seed(0))
    states[:, :, 0] = 0.0
    states[:, 0, 0] = torch.tensor(tasks) * 40.0 - 20.0
    torch.manual_seed(1)
    settings = XLoRASettings(depth=2, width=16, dropout=0.0, context_width=context_width)
    router = XLoRARouter(settings, d_model=WIDTH, module_count=3, expert_count=2)
    warm_up(
        router,
        [Encoded(list(range(TOKENS)), [0] * 40 + [1] * 20) for _ in tasks],
        tasks,
        HiddenStateCache(states.flatten(0, 1), [TOKENS] * 32),
        RouterTrainingSettings(label_steps=500),
        attend=attend,
    )
    log_shares = router.logits(states, attend)[:, 1:].flatten(0, 1).log_softmax(-1)
    labels = torch.tensor(tasks).repeat_interleave(TOKENS - 1)
    assert low < label_losses(log_shares, labels).mean() < high


def test_as_many_tokens_of_a_prompt_are_hidden_as_asked_and_none_of_the_answer() -> None:
    generator = torch.Generator().manual_seed(0)
    mask = torch.tensor([0] * 50 + [1] * 10)
    drawn = torch.stack([kept_tokens(mask, 0.3, generator) for _ in range(2000)])
    assert drawn[:, 49:].all()
    hidden = 1 - drawn[:, :49].float().mean(dim=1)
    assert hidden.mean() == pytest.approx(0.3, abs=0.01)
    # Shares are spread evenly between 0 and 0.6.
    assert [(hidden < end).float().mean().item() for end in (0.15, 0.45)] == pytest.approx(
        [0.25, 0.75], abs=0.05
    )


@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_the_router_sees_parts_of_prompts_alone_where_asked(dropout: float) -> None:
    encoded, tasks, cache = problem()
    torch.manual_seed(1)
    settings = XLoRASettings(depth=2, width=8, dropout=0.0, context_width=4)
    router = XLoRARouter(settings, d_model=WIDTH, module_count=3, expert_count=2)
    lengths = []

    def attend_and_count(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        # Padding comes last and is zero before the layer, so equal to its bias after it.
        seen = (key - router.key.bias).abs().sum(-1) > 1e-6
        lengths.extend(seen.sum(1).tolist())
        return attend(query, key, value)

    training = RouterTrainingSettings(label_steps=20, prompt_dropout=dropout)
    warm_up(router, encoded, tasks, cache, training, attend=attend_and_count)
    # Of the 40 tokens of a prompt 39 may be hidden; the answer has 20.
    assert max(lengths) == TOKENS
    assert min(lengths) >= 21
    assert sum(lengths) / len(lengths) == pytest.approx(TOKENS - dropout * 39, abs=2)


@pytest.mark.parametrize("dropout", [-0.1, 0.6])
def test_a_dropout_that_no_prompt_can_have_is_refused(dropout: float) -> None:
    with pytest.raises(FinLoraError, match="prompt_dropout must be"):
        RouterTrainingSettings(prompt_dropout=dropout)


def test_the_same_seed_gives_the_same_router() -> None:
    first, second, other = (warmed_up(2, 20, seed)[0].state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_label_steps_without_stored_hidden_states_are_refused() -> None:
    with pytest.raises(FinLoraError, match="needs stored hidden states"):
        RouterTrainingSettings(label_steps=5, cache_hidden_states=False)
