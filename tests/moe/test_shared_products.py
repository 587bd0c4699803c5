"""Whole mixtures whose layers share products with A, after they were converted, copied and checkpointed."""

import copy

import pytest
import torch

from finlora.moe.mixture import MixtureForCausalLM

CHANGES = {
    "as built": lambda mixture: mixture,
    "converted": lambda mixture: mixture.double(),
    "copied": copy.deepcopy,
    "copied, then converted": lambda mixture: copy.deepcopy(mixture).double(),
}


@pytest.fixture(params=CHANGES)
def changed(request, make_base, make_mixture) -> MixtureForCausalLM:
    """A mixture of experts with different ranks and layers, changed in each way in turn."""
    return CHANGES[request.param](make_mixture(make_base()))


def _router_gradients(mixture: MixtureForCausalLM, logits: torch.Tensor) -> list[torch.Tensor]:
    return list(torch.autograd.grad(logits.square().mean(), list(mixture.router.parameters())))


def test_logits_and_gradients_equal_the_formula(changed, varied_experts, slow_logits, prompts) -> None:
    model = changed.base
    actual = changed(prompts).logits
    scalings = changed.router(model.base_model(prompts).last_hidden_state)
    expected = slow_logits(model, varied_experts(model), scalings, prompts)
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(
        _router_gradients(changed, actual), _router_gradients(changed, expected), atol=1e-6, rtol=1e-3
    )
    assert len(changed.bank.stacks.downs) < len(changed.bank.stacks.ups)


def test_checkpointed_blocks_share_products_too(changed, prompts) -> None:
    expected = _router_gradients(changed, changed(prompts).logits)
    changed.train().activation_checkpointing_enable()
    torch.testing.assert_close(_router_gradients(changed, changed(prompts).logits), expected)
    assert changed.context.shared is None


def test_two_mixtures_on_one_base_in_turn_and_one_after_the_others_backward(
    make_base, make_mixture, prompts
) -> None:
    base = make_base()
    mixtures = [make_mixture(base, per_module=per_module) for per_module in (True, False)]
    alone = [_router_gradients(mixture, mixture(prompts).logits) for mixture in mixtures]
    logits = [mixture(prompts).logits for mixture in mixtures]
    together = [_router_gradients(*pair) for pair in zip(reversed(mixtures), reversed(logits), strict=True)]
    torch.testing.assert_close(together[::-1], alone)


def test_experts_of_a_copy_are_its_own(make_base, make_mixture, prompts) -> None:
    mixture = make_mixture(make_base())
    expected = mixture(prompts).logits
    other = copy.deepcopy(mixture)
    for parameter in other.bank.parameters():
        parameter.data.zero_()
    torch.testing.assert_close(other(prompts).logits, mixture.base(prompts).logits)
    torch.testing.assert_close(mixture(prompts).logits, expected, rtol=0, atol=0)
