"""One adapted linear layer of a mixture: the frozen base layer plus all experts at once.

    y(t) = W x(t) + B_all (s_wide(t) * (A_all x(t)))

It does not care how W is stored, so a 4-bit or 8-bit bitsandbytes layer is as good as a plain one. Where the
scalings come from is not its business either: they are read from the `ScalingsContext` that the mixture
fills before a pass.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from ..experts.errors import FinLoraError


class StackedExperts(nn.Module):
    """The A and B matrices of every expert that adapts one linear layer, stacked along the rank.

    Ranks may differ, and an expert that does not adapt this layer simply has no rows. `up` already holds each
    expert's alpha / rank (alpha / sqrt(rank) for rsLoRA). Both matrices are frozen.
    """

    expert_of_row: Int[Tensor, " row"]

    def __init__(
        self,
        down: Float[Tensor, "row d_in"],
        up: Float[Tensor, "d_out row"],
        expert_of_row: Int[Tensor, " row"],
    ):
        """Take A_all, B_all (scaled), and for each row of A_all the number of its expert."""
        super().__init__()
        self.down = nn.Parameter(down, requires_grad=False)
        self.up = nn.Parameter(up, requires_grad=False)
        self.register_buffer("expert_of_row", expert_of_row, persistent=False)

    def forward(
        self,
        x: Float[Tensor, "batch token d_in"],
        scalings: Float[Tensor, "#batch #token expert"],
    ) -> Float[Tensor, "batch token d_out"]:
        """Return the weighted sum of all experts' updates, in the dtype of the matrices."""
        narrow = functional.linear(x.to(self.down.dtype), self.down)
        wide_scalings = scalings.to(narrow.dtype).index_select(-1, self.expert_of_row)
        return functional.linear(narrow * wide_scalings, self.up)


class ScalingsContext:
    """Holds the scalings of the pass that is running, for all adapted linear layers of one mixture."""

    def __init__(self) -> None:
        self.scalings: Float[Tensor, "batch token module expert"] | None = None

    @contextmanager
    def using(self, scalings: Float[Tensor, "batch token module expert"] | None) -> Iterator[None]:
        """Make `scalings` current inside the block, and restore the previous ones after it."""
        previous, self.scalings = self.scalings, scalings
        try:
            yield
        finally:
            self.scalings = previous

    def of_module(self, index: int) -> Float[Tensor, "batch token expert"]:
        """Return the current scalings of one adapted linear layer, by its number in the bank's order."""
        if self.scalings is None:
            raise RuntimeError("a mixture layer ran outside of MixtureForCausalLM.forward")
        return self.scalings[:, :, index if self.scalings.shape[2] > 1 else 0]


class MixtureLinear(nn.Module):
    """A base linear layer of any kind, with the experts' scaled updates added to its output."""

    def __init__(self, base_layer: nn.Module, experts: StackedExperts, context: ScalingsContext, index: int):
        """Share `base_layer` and `experts` with their owners; `index` is the layer's number in the bank."""
        super().__init__()
        self.base_layer = base_layer
        self.experts = experts
        self.context = context
        self.index = index

    def forward(self, x: Float[Tensor, "batch token d_in"]) -> Float[Tensor, "batch token d_out"]:
        """Return base output plus the mixed update, in the dtype of the base output.

        Raises:
            FinLoraError: If the base model flattens batch and tokens before this layer.
        """
        if x.ndim != 3:
            raise FinLoraError(
                f"An expert adapts a linear layer that the base calls with {x.ndim}-dimensional input (batch "
                "and token merged, as in mixture-of-experts blocks); train experts on attention and dense "
                "layers only."
            )
        result = self.base_layer(x)
        return result + self.experts(x, self.context.of_module(self.index)).to(result.dtype)


def stack_experts(
    matrices: list[tuple[int, Float[Tensor, "_ d_in"], Float[Tensor, "d_out _"]]],
    *,
    dtype: torch.dtype,
    device: torch.device,
) -> StackedExperts:
    """Stack (expert's number, A, B with alpha / rank multiplied in) of all experts that adapt one layer."""
    rows = [torch.full((down.shape[0],), expert) for expert, down, _ in matrices]
    return StackedExperts(
        torch.cat([down for _, down, _ in matrices], dim=0).to(device=device, dtype=dtype),
        torch.cat([up for _, _, up in matrices], dim=1).to(device=device, dtype=dtype),
        torch.cat(rows).to(device),
    )
