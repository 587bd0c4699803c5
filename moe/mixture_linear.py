"""One adapted linear layer of a mixture: the frozen base layer plus all experts at once.

    y(t) = W x(t) + B_all (s_wide(t) * (A_all x(t)))

It does not care how W is stored, so a 4-bit or 8-bit bitsandbytes layer is as good as a plain one. Where the
scalings come from is not its business either: they are read from the `ScalingsContext` that the mixture
fills before a pass.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from ..experts.errors import FinLoraError


@dataclass(frozen=True)
class Scalings:
    """How much of each expert every token gets, in all adapted linear layers of one pass.

    Attributes:
        weights: One for each expert; axes of size 1 hold for all batch rows, tokens or modules.
        chosen: Numbers of the experts that may have another weight than zero, where skipping all others
            saves work; None means that all are computed.
    """

    weights: Float[Tensor, "#batch #token module expert"]
    chosen: Int[Tensor, "#batch #token module choice"] | None = None

    @classmethod
    def choose(
        cls, weights: Float[Tensor, "#batch #token module expert"], most_chosen: int | None
    ) -> "Scalings":
        """Find the chosen experts, if gathering them for each token reads less than all experts together.

        Args:
            weights: The scalings.
            most_chosen: Most experts with a weight other than zero; None if all may have one.
        """
        tokens, experts = weights.shape[0] * weights.shape[1], weights.shape[-1]
        if most_chosen is None or tokens * most_chosen >= experts:
            return cls(weights)
        return cls(weights, weights.detach().abs().topk(most_chosen, dim=-1).indices)

    def of_module(self, index: int) -> "Scalings":
        """Return those of one adapted linear layer, by its number in the bank's order; the axis is kept."""
        here = slice(index, index + 1) if self.weights.shape[2] > 1 else slice(None)
        return Scalings(self.weights[:, :, here], None if self.chosen is None else self.chosen[:, :, here])


class StackedExperts(nn.Module):
    """The A and B matrices of every expert that adapts one linear layer, stacked along the rank.

    Ranks may differ, and an expert that does not adapt this layer simply has no rows. `up` already holds each
    expert's alpha / rank (alpha / sqrt(rank) for rsLoRA); it is stored transposed, so that the rows of one
    expert are contiguous. Both matrices are frozen.
    """

    expert_of_row: Int[Tensor, " row"]
    rows_of_expert: Int[Tensor, "expert rank"]
    row_exists: Float[Tensor, "expert rank"]

    def __init__(
        self,
        down: Float[Tensor, "row d_in"],
        up: Float[Tensor, "row d_out"],
        expert_of_row: Int[Tensor, " row"],
        expert_count: int,
    ):
        """Take A_all, B_all (scaled, transposed), and for each row of A_all the number of its expert."""
        super().__init__()
        self.down = nn.Parameter(down, requires_grad=False)
        self.up = nn.Parameter(up, requires_grad=False)
        self.register_buffer("expert_of_row", expert_of_row, persistent=False)
        ranks = torch.bincount(expert_of_row, minlength=expert_count)
        place = torch.arange(int(ranks.max()), device=down.device)
        exists = place < ranks[:, None]
        # Places beyond an expert's rank point to any row, and count nothing.
        rows = (ranks.cumsum(0) - ranks)[:, None] + place
        self.register_buffer("rows_of_expert", rows.where(exists, 0), persistent=False)
        self.register_buffer("row_exists", exists.to(down.dtype), persistent=False)

    def forward(
        self, x: Float[Tensor, "batch token d_in"], scalings: Scalings
    ) -> Float[Tensor, "batch token d_out"]:
        """Return the weighted sum of the experts' updates, in the dtype of the matrices.

        Args:
            x: Input of the linear layer.
            scalings: Those of this layer, its module axis of size 1.
        """
        x, weights = x.to(self.down.dtype), scalings.weights[:, :, 0].to(self.down.dtype)
        if scalings.chosen is None:
            narrow = functional.linear(x, self.down)
            return (narrow * weights.index_select(-1, self.expert_of_row)) @ self.up
        chosen = scalings.chosen[:, :, 0]
        rows = self.rows_of_expert[chosen].flatten(2)
        wide = (weights.gather(-1, chosen).unsqueeze(-1) * self.row_exists[chosen]).flatten(2)
        if rows.shape[:2] == (1, 1):
            shared = rows[0, 0]
            return (functional.linear(x, self.down[shared]) * wide) @ self.up[shared]
        narrow = torch.einsum("btd,btrd->btr", x, self.down[rows])
        return torch.einsum("btr,btrd->btd", narrow * wide, self.up[rows])


class ScalingsContext:
    """Holds the scalings of the pass that is running, for all adapted linear layers of one mixture."""

    def __init__(self) -> None:
        self.scalings: Scalings | None = None

    @contextmanager
    def using(self, scalings: Scalings | None) -> Iterator[None]:
        """Make `scalings` current inside the block, and restore the previous ones after it."""
        previous, self.scalings = self.scalings, scalings
        try:
            yield
        finally:
            self.scalings = previous

    def of_module(self, index: int) -> Scalings:
        """Return the current scalings of one adapted linear layer, by its number in the bank's order."""
        if self.scalings is None:
            raise RuntimeError("a mixture layer ran outside of MixtureForCausalLM.forward")
        return self.scalings.of_module(index)


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
    expert_count: int,
    dtype: torch.dtype,
    device: torch.device,
) -> StackedExperts:
    """Stack (expert's number, A, B with alpha / rank multiplied in) of all experts that adapt one layer.

    Args:
        matrices: In the order of the experts' numbers.
        expert_count: Number of experts, also those that do not adapt this layer.
        dtype: Of the stacked matrices.
        device: Where they go.
    """
    rows = [torch.full((down.shape[0],), expert) for expert, down, _ in matrices]
    return StackedExperts(
        torch.cat([down for _, down, _ in matrices], dim=0).to(device=device, dtype=dtype),
        torch.cat([up.T for _, _, up in matrices], dim=0).to(device=device, dtype=dtype),
        torch.cat(rows).to(device),
        expert_count,
    )
