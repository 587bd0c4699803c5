"""Linear layers on a few rows at once, on a CPU in float32.

PyTorch 2.13 hands x W^T to a library that reads W again for each of a few rows: two rows of a layer that is
larger than the processor's cache take twice as long as one. W x^T reads W once.
"""

from typing import cast

from jaxtyping import Float
from torch import Tensor, float32, mm, nn

MOST_ROWS = 8
"""More rows are quicker the usual way."""
SMALLEST_WEIGHT = 2**17
"""Number of weights below which a layer stays in the processor's cache, where reading again costs little."""


def is_large(layer: nn.Module) -> bool:
    """Whether a layer is too large for the processor's cache, so that `linear` may be the quicker way."""
    return type(layer) is nn.Linear and layer.weight.numel() >= SMALLEST_WEIGHT


def linear(layer: nn.Module, x: Float[Tensor, "*batch d_in"]) -> Tensor:
    """Return what a linear layer of any kind returns, which a hook on it may have changed."""
    rows = x.numel() // x.shape[-1]
    if not 1 < rows <= MOST_ROWS or not is_large(layer) or x.device.type != "cpu":
        return layer(x)
    plain = cast(nn.Linear, layer)
    weight = plain.weight
    hooked = layer._forward_hooks or layer._forward_pre_hooks
    if hooked or weight.dtype != float32 or x.dtype != float32:
        return layer(x)
    result = mm(weight, x.reshape(rows, -1).t()).t()
    if plain.bias is not None:
        result = result + plain.bias
    return result.reshape(*x.shape[:-1], -1)


class FewRowsLinear(nn.Module):
    """A layer, called in the way that is quick for a few rows."""

    def __init__(self, layer: nn.Module):
        """Share the layer with its owner."""
        super().__init__()
        self.layer = layer

    def forward(self, x: Float[Tensor, "*batch d_in"]) -> Tensor:
        """Return what the layer returns."""
        return linear(self.layer, x)
