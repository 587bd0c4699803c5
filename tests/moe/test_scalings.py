"""Scalings: when experts are gathered, and what is current."""

import copy

import pytest
import torch

from finlora.moe.scalings import RowLayout, Scalings, ScalingsContext


@pytest.fixture
def layout() -> RowLayout:
    """Two layers in one group and one alone; eight experts of rank 1, the first also of rank 3 or absent."""
    ranks = torch.ones(3, 8, dtype=torch.long)
    ranks[0, 0], ranks[2, 0] = 3, 0
    return RowLayout(ranks, [2, 1], dtype=torch.float32)


def test_experts_are_gathered_only_where_that_reads_less(layout) -> None:
    weights = torch.rand(1, 3, 3, 8)
    assert Scalings.choose(weights, None, layout).chosen is None
    assert Scalings.choose(weights, 3, layout).chosen is None
    chosen = Scalings.choose(weights, 2, layout).chosen
    assert chosen.tolist() == weights.topk(2, dim=-1).indices.tolist()


def test_every_row_gets_the_weight_of_its_expert_and_layer(layout) -> None:
    weights = torch.arange(24.0).view(1, 1, 3, 8)
    groups = [Scalings(weights, layout).of_group(index).weights.flatten().tolist() for index in range(2)]
    assert groups == [[0, 0, *range(16)], [*range(17, 24)]]
    shared = [Scalings(weights[:, :, :1], layout).of_group(index) for index in range(2)]
    assert [group.weights.flatten().tolist() for group in shared] == [
        [0, 0, *range(8), *range(8)],
        [*range(1, 8)],
    ]


def test_chosen_rows_are_those_of_the_chosen_expert(layout) -> None:
    weights = torch.zeros(1, 1, 3, 8)
    weights[..., 0] = 5
    weights[:, :, 1] = weights[:, :, 1].roll(2, -1)
    scalings = Scalings.choose(weights, 1, layout)
    first, second = scalings.of_group(0), scalings.of_group(1)
    assert first.weights.flatten().tolist() == [5, 5, 5, 5]
    assert first.down_rows.flatten().tolist() == [0, 1, 2, 10 + 2]
    assert [rows.flatten().tolist() for rows in first.up_rows] == [[0, 1, 2], [2]]
    # Expert 0 has no rows in the last layer.
    assert second.weights.flatten().tolist() == [0]


def test_one_gradient_for_all_groups(layout, monkeypatch) -> None:
    gradients = []
    for limit in (2**20, 0):
        monkeypatch.setattr("finlora.moe.scalings.WIDEN_AT_ONCE", limit)
        weights = torch.ones(2, 2, 3, 8, requires_grad=True)
        scalings = Scalings(weights, layout)
        sum(scalings.of_group(index).weights.sum() * (index + 1) for index in range(2)).backward()
        gradients.append(weights.grad)
    assert gradients[0][0, 0].tolist() == [[3] + [1] * 7, [1] * 8, [0] + [2] * 7]
    torch.testing.assert_close(*gradients)


def test_context_restores_what_was_current_before(layout) -> None:
    context = ScalingsContext()
    outer, inner = (Scalings(torch.full((1, 1, 1, 8), value), layout) for value in (0.0, 1.0))
    with context.using(outer):
        with context.using(inner):
            assert context.scalings is inner
            assert copy.deepcopy(context).scalings is None
        assert context.scalings is outer
    assert context.scalings is None
