"""One adapted layer alone: its formula, and calls it cannot serve."""

import pytest
import torch
from torch import nn

from finlora.experts.errors import FinLoraError
from finlora.moe.mixture_linear import MixtureLinear, ScalingsContext, stack_experts


@pytest.fixture
def matrices():
    """A and B of experts 0 and 2 with ranks 3 and 1; expert 1 does not adapt the layer."""
    generator = torch.Generator().manual_seed(0)
    return [
        (0, torch.randn(3, 6, generator=generator), torch.randn(5, 3, generator=generator)),
        (2, torch.randn(1, 6, generator=generator), torch.randn(5, 1, generator=generator)),
    ]


def test_output_is_base_plus_the_weighted_sum_of_updates(matrices) -> None:
    context = ScalingsContext()
    base = nn.Linear(6, 5)
    layer = MixtureLinear(
        base, stack_experts(matrices, dtype=torch.float32, device=torch.device("cpu")), context, 1
    )
    x, scalings = torch.randn(2, 4, 6), torch.rand(2, 4, 3, 3)
    expected = base(x)
    for expert, down, up in matrices:
        expected = expected + scalings[:, :, 1, expert, None] * (x @ (up @ down).T)
    with context.using(scalings):
        torch.testing.assert_close(layer(x), expected)


def test_context_restores_what_was_current_before() -> None:
    context = ScalingsContext()
    outer, inner = torch.zeros(1, 1, 1, 2), torch.ones(1, 1, 1, 2)
    with context.using(outer):
        with context.using(inner):
            assert context.of_module(7).tolist() == [[[1, 1]]]
        assert context.of_module(7).tolist() == [[[0, 0]]]
    with pytest.raises(RuntimeError, match=r"outside of MixtureForCausalLM\.forward"):
        context.of_module(0)


def test_merged_batch_and_token_axes_are_refused(matrices) -> None:
    layer = MixtureLinear(
        nn.Linear(6, 5),
        stack_experts(matrices, dtype=torch.float32, device=torch.device("cpu")),
        ScalingsContext(),
        0,
    )
    # Straight to the function behind the run-time check of shapes, as without the test hook.
    with pytest.raises(FinLoraError, match="2-dimensional input"):
        type(layer).forward.__wrapped__(layer, torch.zeros(8, 6))
