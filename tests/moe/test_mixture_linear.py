"""One adapted layer alone: its formula, and calls it cannot serve."""

import pytest
import torch
from torch import nn

from finlora.experts.errors import FinLoraError
from finlora.moe.mixture_linear import MixtureLinear, Scalings, ScalingsContext, stack_experts


@pytest.fixture
def matrices():
    """A and B of experts 0 and 2 with ranks 3 and 1; expert 1 does not adapt the layer."""
    generator = torch.Generator().manual_seed(0)
    return [
        (0, torch.randn(3, 6, generator=generator), torch.randn(5, 3, generator=generator)),
        (2, torch.randn(1, 6, generator=generator), torch.randn(5, 1, generator=generator)),
    ]


@pytest.fixture
def make_layer(matrices):
    """A maker of that layer, number 1 in its bank, and of its context."""

    def make(base: nn.Linear) -> tuple[MixtureLinear, ScalingsContext]:
        context = ScalingsContext()
        stack = stack_experts(matrices, expert_count=3, dtype=torch.float32, device=torch.device("cpu"))
        return MixtureLinear(base, stack, context, 1), context

    return make


def slow_output(base: nn.Linear, matrices, x: torch.Tensor, scalings: torch.Tensor) -> torch.Tensor:
    expected = base(x)
    for expert, down, up in matrices:
        expected = expected + scalings[:, :, 1, expert, None] * (x @ (up @ down).T)
    return expected


def test_output_is_base_plus_the_weighted_sum_of_updates(make_layer, matrices) -> None:
    base = nn.Linear(6, 5)
    layer, context = make_layer(base)
    x, scalings = torch.randn(2, 4, 6), torch.rand(2, 4, 3, 3)
    with context.using(Scalings(scalings)):
        torch.testing.assert_close(layer(x), slow_output(base, matrices, x, scalings))


@pytest.mark.parametrize("tokens", [(1, 1), (2, 4)], ids=["the same for all tokens", "each token its own"])
@pytest.mark.parametrize("choices", [1, 2])
def test_gathering_the_chosen_experts_equals_computing_all(make_layer, matrices, tokens, choices) -> None:
    base = nn.Linear(6, 5)
    layer, context = make_layer(base)
    scalings = torch.randn(*tokens, 3, 3)
    kept = scalings.abs().topk(choices, dim=-1).indices
    scalings = torch.zeros_like(scalings).scatter(-1, kept, scalings).requires_grad_()
    x = torch.randn(2, 4, 6)
    outputs, gradients = [], []
    for chosen in (None, kept):
        with context.using(Scalings(scalings, chosen)):
            outputs.append(layer(x))
        (gradient,) = torch.autograd.grad(outputs[-1].square().sum(), scalings)
        gradients.append(gradient.gather(-1, kept))
    torch.testing.assert_close(outputs[1], outputs[0])
    torch.testing.assert_close(gradients[1], gradients[0])
    expected = slow_output(base, matrices, x, scalings.detach().expand(2, 4, 3, 3))
    torch.testing.assert_close(outputs[1].detach(), expected)


def test_experts_are_gathered_only_where_that_reads_less() -> None:
    weights = torch.rand(1, 3, 2, 8)
    assert Scalings.choose(weights, None).chosen is None
    assert Scalings.choose(weights, 3).chosen is None
    assert Scalings.choose(weights, 2).chosen.tolist() == weights.topk(2, dim=-1).indices.tolist()


def test_context_restores_what_was_current_before() -> None:
    context = ScalingsContext()
    outer, inner = Scalings(torch.zeros(1, 1, 1, 2)), Scalings(torch.ones(1, 1, 1, 2))
    with context.using(outer):
        with context.using(inner):
            assert context.of_module(7).weights.tolist() == [[[[1, 1]]]]
        assert context.of_module(7).weights.tolist() == [[[[0, 0]]]]
    with pytest.raises(RuntimeError, match=r"outside of MixtureForCausalLM\.forward"):
        context.of_module(0)


def test_merged_batch_and_token_axes_are_refused(make_layer) -> None:
    layer, _ = make_layer(nn.Linear(6, 5))
    # Straight to the function behind the run-time check of shapes, as without the test hook.
    with pytest.raises(FinLoraError, match="2-dimensional input"):
        type(layer).forward.__wrapped__(layer, torch.zeros(8, 6))
