"""The quick way for a few rows gives what the layer gives."""

import pytest
import torch
from torch import nn

from finlora.moe import few_rows


@pytest.fixture
def every_weight_is_large(monkeypatch) -> None:
    monkeypatch.setattr(few_rows, "SMALLEST_WEIGHT", 1)


@pytest.mark.usefixtures("every_weight_is_large")
@pytest.mark.parametrize("shape", [(1, 1), (2, 1), (1, 3), (4, 2), (8, 1), (5, 5), (0, 3)])
@pytest.mark.parametrize("bias", [True, False])
def test_equals_the_layer(shape, bias) -> None:
    layer, x = nn.Linear(6, 4, bias=bias), torch.randn(*shape, 6)
    torch.testing.assert_close(few_rows.linear(layer, x), layer(x))


@pytest.mark.usefixtures("every_weight_is_large")
def test_gradients_equal_those_of_the_layer() -> None:
    layer, x = nn.Linear(6, 4), torch.randn(2, 1, 6, requires_grad=True)
    gradients = []
    for way in (layer, lambda x: few_rows.linear(layer, x)):
        gradients.append(torch.autograd.grad(way(x).square().sum(), [x, layer.weight, layer.bias]))
    torch.testing.assert_close(*gradients)


@pytest.mark.usefixtures("every_weight_is_large")
def test_only_plain_layers_of_large_weights_take_the_quick_way(monkeypatch) -> None:
    calls: list[int] = []
    monkeypatch.setattr(few_rows, "mm", lambda *tensors: calls.append(1) or torch.mm(*tensors))
    plain, hooked = nn.Linear(6, 4), nn.Linear(6, 4)
    hooked.register_forward_hook(lambda *_: None)
    for layer, x in (
        (hooked, torch.randn(2, 1, 6)),
        (plain.to(torch.float64), torch.randn(2, 1, 6, dtype=torch.float64)),
        (nn.Identity(), torch.randn(2, 1, 6)),
        (nn.Linear(6, 4), torch.randn(1, 1, 6)),
        (nn.Linear(6, 4), torch.randn(few_rows.MOST_ROWS + 1, 1, 6)),
    ):
        few_rows.linear(layer, x)
    assert not calls
    few_rows.linear(nn.Linear(6, 4), torch.randn(2, 1, 6))
    monkeypatch.setattr(few_rows, "SMALLEST_WEIGHT", 25)
    few_rows.linear(nn.Linear(6, 4), torch.randn(2, 1, 6))
    assert len(calls) == 1
