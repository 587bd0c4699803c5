"""Matrices of all experts for all adapted layers, stacked: two thin products apply every expert."""

from collections.abc import Iterable, Sequence
from itertools import accumulate, pairwise
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from .scalings import GroupScalings, RowLayout, Scalings

INPUT_SHARERS = (
    frozenset({"q_proj", "k_proj", "v_proj"}),
    frozenset({"query", "key", "value"}),
    frozenset({"gate_proj", "up_proj"}),
)
"""Names of layers that get the same input where they stand side by side in one module."""

Matrices = tuple[int, Float[Tensor, "_ _"], Float[Tensor, "_ _"]]
"""Number of an expert, its A (rank, d_in), and its B (d_out, rank) with alpha / rank multiplied in."""


class StackedDown(nn.Module):
    """The A matrices of every expert for a group of layers with the same input, stacked along the rank.

    The rows of a layer follow each other, and in them the rows of an expert. Frozen.
    """

    def __init__(self, down: Float[Tensor, "row d_in"], rows_of_layer: Sequence[int]):
        """Take the matrix, and how many of its rows belong to each layer."""
        super().__init__()
        self.down = nn.Parameter(down, requires_grad=False)
        self.rows_of_layer = list(rows_of_layer)

    def narrow_all(
        self, x: Float[Tensor, "batch token d_in"], scalings: GroupScalings
    ) -> Sequence[Float[Tensor, "batch token _"]]:
        """Return the scaled products of all layers' A matrices with one input, in the matrices' dtype."""
        if scalings.down is not None:
            product = _narrow(x, scalings.down, None) * scalings.weights
        else:
            product = _narrow(x, self.down, scalings.down_rows) * scalings.weights
        if len(self.rows_of_layer) == 1:
            return (product,)
        return product.split(self._sizes(scalings), dim=-1)

    def narrow_one(
        self, x: Float[Tensor, "batch token d_in"], scalings: GroupScalings, place: int
    ) -> Float[Tensor, "batch token row"]:
        """Return the same for one layer of the group."""
        sizes = self._sizes(scalings)
        weights = scalings.weights.split(sizes, dim=-1)[place]
        if scalings.down_rows is None:
            return _narrow(x, self.down.split(sizes)[place], None) * weights
        return _narrow(x, self.down, scalings.down_rows.split(sizes, dim=-1)[place]) * weights

    def _sizes(self, scalings: GroupScalings) -> list[int]:
        if scalings.up_rows is None:
            return self.rows_of_layer
        return [rows.shape[-1] for rows in scalings.up_rows]


class StackedUp(nn.Module):
    """The B matrices of every expert for one layer, stacked along the rank.

    They already hold each expert's alpha / rank (alpha / sqrt(rank) for rsLoRA), and are stored transposed,
    so that the rows of one expert are contiguous. Frozen.
    """

    def __init__(self, up: Float[Tensor, "row d_out"], group: int, place: int):
        """Take the matrix, and which layer of which group of the bank it belongs to."""
        super().__init__()
        # The first axis is the batch of `baddbmm`, which alone adds a product to a batch in one call.
        self.up = nn.Parameter(up.unsqueeze(0), requires_grad=False)
        self.group = group
        self.place = place

    def add_to(
        self,
        result: Float[Tensor, "batch token d_out"],
        narrow: Float[Tensor, "batch token row"],
        rows: Int[Tensor, "#batch #token row"] | None,
        taken_out: Float[Tensor, "1 row d_out"] | None = None,
    ) -> Float[Tensor, "batch token d_out"]:
        """Return `result` plus the product of a scaled narrow product with these matrices.

        Args:
            result: Output of the base layer; not changed.
            narrow: What `StackedDown` returned for this layer.
            rows: Numbers of the chosen experts' rows; None for all.
            taken_out: These rows, if they were taken out beforehand.
        """
        up = self.up if taken_out is None else taken_out
        if rows is not None and taken_out is None:
            if rows.shape[:2] != (1, 1):
                update = (narrow.unsqueeze(-2) @ up[0, rows]).squeeze(-2)
                return result + update.to(result.dtype)
            up = up.index_select(1, rows.flatten())
        if result.dtype != narrow.dtype or result.dtype != up.dtype:
            return result + (narrow @ up).to(result.dtype)
        if result.shape[0] == 1:
            return torch.baddbmm(result, narrow, up)
        flat = torch.addmm(result.flatten(0, 1), narrow.flatten(0, 1), up.squeeze(0))
        return flat.view(result.shape)


class ExpertStacks(nn.Module):
    """Stacked matrices of n experts; ranks may differ, and an expert without a layer has no rows there.

    Attributes:
        downs: A matrices, one stack for each group of layers with the same input.
        ups: B matrices, one stack for each adapted layer.
        layout: Which expert and layer each row belongs to.
    """

    def __init__(
        self,
        layers: Sequence[tuple[str, Sequence[Matrices], torch.device]],
        *,
        expert_count: int,
        dtype: torch.dtype,
    ):
        """Stack matrices; those of layers that follow each other and get the same input, in one.

        Args:
            layers: Name of each adapted layer, matrices of its experts in the order of their numbers, and
                where they go.
            expert_count: Number of experts, also those that adapt nothing.
            dtype: Of the stacked matrices.
        """
        super().__init__()
        ranks = torch.zeros(len(layers), expert_count, dtype=torch.long)
        for index, (_, matrices, _) in enumerate(layers):
            for expert, down, _ in matrices:
                ranks[index, expert] = down.shape[0]
        sizes = _group_sizes(layers)
        self.layout = RowLayout(ranks.to(layers[0][2]), sizes, dtype=dtype)
        self.downs, self.ups = nn.ModuleList(), nn.ModuleList()
        for group, (start, end) in enumerate(pairwise(accumulate(sizes, initial=0))):
            members = layers[start:end]
            downs = [down for _, matrices, _ in members for _, down, _ in matrices]
            to = {"device": members[0][2], "dtype": dtype}
            self.downs.append(StackedDown(torch.cat(downs).to(**to), self.layout.rows_of_module[start:end]))
            for place, (_, matrices, _) in enumerate(members):
                up = torch.cat([up.T for _, _, up in matrices]).to(**to)
                self.ups.append(StackedUp(up, group, place))

    def take_out(self, scalings: Scalings) -> Scalings:
        """Copy the chosen experts' rows once, for scalings of one token that will serve many passes."""
        groups = [scalings.of_group(index) for index in range(len(self.downs))]
        if any(group.down_rows is None or group.down_rows.shape[:2] != (1, 1) for group in groups):
            return scalings
        ups = {(up.group, up.place): up.up for up in cast("Iterable[StackedUp]", self.ups)}
        downs = cast("Iterable[StackedDown]", self.downs)
        return scalings.with_groups(
            [
                group._replace(
                    down=stack.down.index_select(0, cast(Tensor, group.down_rows).flatten()),
                    ups=[
                        ups[index, place].index_select(1, rows.flatten())
                        for place, rows in enumerate(group.up_rows or ())
                    ],
                )
                for index, (stack, group) in enumerate(zip(downs, groups, strict=True))
            ]
        )


def _narrow(
    x: Float[Tensor, "batch token d_in"],
    down: Float[Tensor, "_ d_in"],
    rows: Int[Tensor, "#batch #token row"] | None,
) -> Float[Tensor, "batch token row"]:
    x = x.to(down.dtype)
    if rows is None:
        return functional.linear(x, down)
    if rows.shape[:2] == (1, 1):
        return functional.linear(x, down.index_select(0, rows.flatten()))
    return (down[rows] @ x.unsqueeze(-1)).squeeze(-1)


def _group_sizes(layers: Sequence[tuple[str, Sequence[Matrices], torch.device]]) -> list[int]:
    """Return how many layers, one after the other, make up each group with the same input."""
    sizes: list[int] = []
    last = None
    for name, matrices, device in layers:
        parent, _, leaf = name.rpartition(".")
        sharers = next((one for one in INPUT_SHARERS if leaf in one), name)
        this = (parent, sharers, matrices[0][1].shape[1], device)
        if this == last:
            sizes[-1] += 1
        else:
            sizes.append(1)
        last = this
    return sizes
