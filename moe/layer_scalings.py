"""Scalings of a pass that are decided while it runs, by a `LayerRouter`, layer by layer.

Layers with the same input decide together, each with its own gate vectors, and share the product with their
A matrices as they do with any router.
"""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ..experts.errors import FinLoraError
from .bank import ExpertBank
from .expert_stacks import ExpertStacks, StackedDown
from .layer_gates import LayerRouter
from .scalings import GroupScalings, PassScalings, RowLayout, Scalings


class GroupLayout(RowLayout):
    """Rows of one group of layers with the same input, by themselves, and which experts adapt them."""

    adapts: Bool[Tensor, "module expert"]

    def __init__(self, ranks: Int[Tensor, "module expert"], modules: range, *, dtype: torch.dtype):
        """Lay out rows.

        Args:
            ranks: Of each expert in each layer of the group.
            modules: Numbers of these layers in the bank.
            dtype: Of the stacked matrices.
        """
        super().__init__(ranks, [len(ranks)], dtype=dtype)
        self.numbers = modules
        self.all_adapt = bool((ranks > 0).all())
        self.register_buffer("adapts", ranks > 0, persistent=False)


def lay_out_groups(stacks: ExpertStacks) -> nn.ModuleList:
    """Return the layout of each group of layers with the same input."""
    layout = stacks.layout
    downs = [cast(StackedDown, stack).down for stack in stacks.downs]
    return nn.ModuleList(
        GroupLayout(layout.ranks[start:end].to(down.device), range(start, end), dtype=down.dtype)
        for (start, end), down in zip(layout.module_ranges, downs, strict=True)
    )


class _Decided(NamedTuple):
    """What was decided last, and how many layers of the group have not used it yet."""

    group: int
    x: Tensor
    scalings: GroupScalings
    left: int


class LayerScalings(PassScalings):
    """Scalings of one pass, decided by a `LayerRouter` when the layers run."""

    def __init__(self, router: LayerRouter, layouts: nn.ModuleList, *, keep: bool):
        """Begin a pass.

        Args:
            router: Decides.
            layouts: What `lay_out_groups` returned for the bank.
            keep: Whether `kept` will be asked for.
        """
        self._router = router
        self._layouts = layouts
        self._kept: dict[int, Tensor] | None = {} if keep else None
        self._last: _Decided | None = None

    def of_group(self, index: int, x: Float[Tensor, "batch token d_in"]) -> GroupScalings:
        """Return those of one group of adapted layers; layers that share an input decide once."""
        last = self._last
        if last is not None and last.group == index and last.x is x:
            scalings, left = last.scalings, last.left - 1
        else:
            scalings, left = self._decide(index, x), len(self._layout(index).numbers) - 1
        # After the last layer of the group the input need not live on.
        self._last = _Decided(index, x, scalings, left) if left else None
        return scalings

    def kept(self) -> Float[Tensor, "batch token module expert"] | None:
        """Return all scalings of the pass, if they were kept."""
        if self._kept is None:
            return None
        return torch.cat([self._kept[index] for index in range(len(self._layouts))], dim=2)

    def _decide(self, index: int, x: Tensor) -> GroupScalings:
        layout, router = self._layout(index), self._router
        weights = router.weigh(x, layout.numbers, None if layout.all_adapt else layout.adapts)
        if self._kept is not None:
            self._kept[index] = weights.detach()
        scalings = Scalings.choose(weights, router.most_chosen, layout).of_group(0)
        if router.settings.combine == "outputs":
            return scalings
        rows = scalings.up_rows
        sizes = layout.rows_of_module if rows is None else [one.shape[-1] for one in rows]
        mix = partial(
            mix_matrices,
            weights=scalings.weights.split(sizes, dim=-1),
            ranks=layout.places_of_module,
            by_expert=rows is None,
        )
        return scalings._replace(mix=mix)

    def _layout(self, index: int) -> GroupLayout:
        return cast(GroupLayout, self._layouts[index])


def mix_matrices(
    narrow: Float[Tensor, "batch token row"],
    place: int,
    *,
    weights: Sequence[Float[Tensor, "batch token _"]],
    ranks: Sequence[int],
    by_expert: bool,
) -> Float[Tensor, "batch token row"]:
    """Turn w A x of each expert into w times the sum of all of them, so that B mixes matrices, not outputs.

    Args:
        narrow: w A x of the experts that adapt a layer, all of one rank.
        place: Which layer of its group this is.
        weights: w of each row, for each layer of the group.
        ranks: The rank in each layer of the group.
        by_expert: Whether the rows of an expert follow each other, or those of one place in all experts.
    """
    rank = ranks[place]
    shape, experts = ((-1, rank), -2) if by_expert else ((rank, -1), -1)
    mixed = narrow.unflatten(-1, shape).sum(dim=experts, keepdim=True)
    return (mixed * weights[place].unflatten(-1, shape)).flatten(-2)


def check_gates_fit(router: LayerRouter, bank: ExpertBank) -> None:
    """Check that a router's vectors are for these experts and layers, and that the experts can be combined.

    Raises:
        FinLoraError: If a number or width differs, or matrices of different ranks would be mixed.
    """
    downs = [cast(StackedDown, stack).down for stack in bank.stacks.downs]
    groups = zip(downs, bank.stacks.layout.group_sizes, strict=True)
    expected = [(bank.expert_count, down.shape[1]) for down, size in groups for _ in range(size)]
    given = [tuple(one.shape) for one in router.vectors]
    if given != expected:
        raise FinLoraError(
            f"Gate vectors for {len(given)} layers and {router.expert_count} experts do not fit a bank of "
            f"{bank.module_count} adapted linear layers and {bank.expert_count} experts, or their widths "
            "differ; make the router for this bank."
        )
    if router.settings.combine == "outputs":
        return
    for module, ranks in zip(bank.module_names, bank.stacks.layout.ranks.tolist(), strict=True):
        used = {rank: name for name, rank in zip(bank.expert_names, ranks, strict=True) if rank}
        if len(used) > 1:
            (one, first), (other, second), *_ = used.items()
            raise FinLoraError(
                f"combine='matrices' adds up the experts' matrices, so they need one rank, but in {module} "
                f"{first} has rank {one} and {second} rank {other}; use combine='outputs'."
            )
