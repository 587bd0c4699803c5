"""How much of each expert every token gets, brought into the shape in which the adapted linear layers use it.

A router gives one number for each (token, module, expert). The layers need one for each row of their stacked
matrices. Bringing the one into the form of the other takes a few operations for the whole bank, so it happens
once a pass and not once a layer.
"""

import copy
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

WIDEN_AT_ONCE = 2**20
"""Most widened weights that are made for a whole pass at once; beyond, memory counts more than calls."""


class RowLayout(nn.Module):
    """Which expert and adapted layer each row of a bank's stacked matrices belongs to.

    Layers come in the bank's order; some that follow each other form a group, whose A matrices are stacked in
    one. The rows of a layer are its experts' rows, one expert after the other. A *place* is a row that a
    chosen expert may have in a layer; a layer has as many as the largest of its experts' ranks.
    """

    ranks: Int[Tensor, "module expert"]
    expert_of_row: Int[Tensor, " row"]
    slot_of_row: Int[Tensor, " row"]
    module_of_place: Int[Tensor, " place"]
    first_choice_of_place: Int[Tensor, "place 1"]
    start_of_place: Int[Tensor, "place 1"]
    row_of_choice: Int[Tensor, " place_expert"]
    row_exists: Float[Tensor, " place_expert"]

    def __init__(
        self, ranks: Int[Tensor, "module expert"], group_sizes: Sequence[int], *, dtype: torch.dtype
    ):
        """Lay out rows.

        Args:
            ranks: Of each expert in each layer, 0 where it does not adapt it; also says on which device.
            group_sizes: Number of layers in each group.
            dtype: Of the stacked matrices.
        """
        super().__init__()
        self.module_count, self.expert_count = ranks.shape
        self.group_sizes = list(group_sizes)
        widths, row_counts = ranks.amax(dim=1), ranks.sum(dim=1)
        starts = [0, *accumulate(self.group_sizes)]
        self.module_ranges = list(pairwise(starts))
        self.rows_of_module: list[int] = row_counts.tolist()
        self.places_of_module: list[int] = widths.tolist()
        self.rows_of_group = [sum(self.rows_of_module[i:j]) for i, j in self.module_ranges]
        self.places_of_group = [sum(self.places_of_module[i:j]) for i, j in self.module_ranges]
        modules = torch.arange(self.module_count, device=ranks.device)
        slots = torch.arange(ranks.numel(), device=ranks.device).repeat_interleave(ranks.flatten())
        module_of_place = modules.repeat_interleave(widths)
        place = torch.arange(len(module_of_place), device=ranks.device)
        offset = (place - (widths.cumsum(0) - widths)[module_of_place]).unsqueeze(-1)
        exists = offset < ranks[module_of_place]
        self.ranks_differ = not bool(exists.all())
        # Places beyond an expert's rank point to the layer's first row, and count nothing.
        rows = ((ranks.cumsum(1) - ranks)[module_of_place] + offset).where(exists, 0)
        start_of_group = (
            row_counts.cumsum(0)[torch.tensor(starts[:-1])] - row_counts[torch.tensor(starts[:-1])]
        )
        group_of_module = torch.arange(len(group_sizes)).repeat_interleave(torch.tensor(self.group_sizes))
        start_of_module = row_counts.cumsum(0) - row_counts - start_of_group[group_of_module]
        buffers = {
            "ranks": ranks,
            "expert_of_row": slots % self.expert_count,
            "slot_of_row": slots,
            "module_of_place": module_of_place,
            "first_choice_of_place": place.unsqueeze(-1) * self.expert_count,
            "start_of_place": start_of_module[module_of_place].unsqueeze(-1),
            "row_of_choice": rows.flatten(),
            "row_exists": exists.flatten().to(dtype),
        }
        for name, buffer in buffers.items():
            self.register_buffer(name, buffer, persistent=False)


class GroupScalings(NamedTuple):
    """Scalings of one group of adapted layers, one for each row of its stacked A matrices.

    Attributes:
        weights: Of all rows, or of those of the chosen experts.
        down_rows: Numbers of the chosen experts' rows in the group's A matrices; None for all.
        up_rows: For each layer of the group, numbers of the chosen experts' rows in its own B matrices.
        down: The chosen rows themselves, where they were taken out beforehand.
        ups: Those of each layer's B matrices.
        mix: What becomes of a layer's scaled product with its A matrices before it meets the B matrices,
            given with the layer's place in the group; None leaves it as it is.
    """

    weights: Float[Tensor, "#batch #token row"]
    down_rows: Int[Tensor, "#batch #token row"] | None = None
    up_rows: Sequence[Int[Tensor, "#batch #token _"]] | None = None
    down: Float[Tensor, "row d_in"] | None = None
    ups: Sequence[Float[Tensor, "1 _ _"]] | None = None
    mix: Callable[[Tensor, int], Tensor] | None = None


class PassScalings(ABC):
    """Where the adapted linear layers get their scalings from during a pass."""

    @abstractmethod
    def of_group(self, index: int, x: Tensor) -> GroupScalings:
        """Return those of one group of adapted layers, whose input is `x` (batch, token, d_in)."""


class Scalings(PassScalings):
    """How much of each expert every token gets, in all adapted linear layers of one pass.

    Attributes:
        weights: One for each expert; axes of size 1 hold for all batch rows, tokens or modules.
        chosen: Numbers of the experts that may have another weight than zero, where skipping all others
            saves work; None means that all are computed.
    """

    def __init__(
        self,
        weights: Float[Tensor, "#batch #token #module expert"],
        layout: RowLayout,
        chosen: Int[Tensor, "#batch #token #module choice"] | None = None,
    ):
        """Take scalings as a router gives them, and the layout of the bank they are for."""
        self.weights = weights
        self.chosen = chosen
        self._layout = layout
        self._cast = weights.to(layout.row_exists.dtype)
        self._groups: Sequence[GroupScalings] | None = None
        if chosen is not None:
            self._groups = self._gather(chosen)
        elif weights.shape[0] * weights.shape[1] * len(layout.slot_of_row) <= WIDEN_AT_ONCE:
            rows = self._widen(self._cast, layout.slot_of_row)
            self._groups = [GroupScalings(part) for part in rows.split(layout.rows_of_group, dim=-1)]
        else:
            # One split has one gradient; a slice for each group would have one as large as all of them.
            sizes = layout.group_sizes if weights.shape[2] > 1 else [1]
            self._parts = self._cast.split(sizes, dim=2)

    @classmethod
    def choose(
        cls,
        weights: Float[Tensor, "#batch #token #module expert"],
        most_chosen: int | None,
        layout: RowLayout,
    ) -> "Scalings":
        """Find the chosen experts, if gathering them for each token reads less than all experts together.

        Args:
            weights: The scalings.
            most_chosen: Most experts with a weight other than zero; None if all may have one.
            layout: That of the bank they are for.
        """
        tokens, experts = weights.shape[0] * weights.shape[1], weights.shape[-1]
        if most_chosen is None or tokens * most_chosen >= experts:
            return cls(weights, layout)
        return cls(weights, layout, weights.detach().abs().topk(most_chosen, dim=-1).indices)

    def with_groups(self, groups: Sequence[GroupScalings]) -> "Scalings":
        """Return the same scalings, with the groups as given."""
        same = copy.copy(self)
        same._groups = groups
        return same

    def of_group(self, index: int, x: Tensor | None = None) -> GroupScalings:
        """Return those of one group of adapted layers, which do not depend on its input."""
        if self._groups is not None:
            return self._groups[index]
        layout = self._layout
        end = sum(layout.rows_of_group[: index + 1])
        rows = slice(end - layout.rows_of_group[index], end)
        part = self._parts[index if len(self._parts) > 1 else 0]
        first_slot = layout.module_ranges[index][0] * layout.expert_count
        return GroupScalings(self._widen(part, layout.slot_of_row[rows] - first_slot))

    def _widen(
        self, weights: Float[Tensor, "#batch #token #module expert"], slots: Int[Tensor, " row"]
    ) -> Float[Tensor, "#batch #token row"]:
        if self.weights.shape[2] == 1:
            slots = slots % self._layout.expert_count
        return weights.flatten(2).index_select(-1, slots)

    def _gather(self, chosen: Int[Tensor, "#batch #token #module choice"]) -> Sequence[GroupScalings]:
        layout = self._layout
        places, choices = layout.module_of_place, chosen.shape[-1]
        each_module = (-1, -1, layout.module_count, -1)
        index = chosen.expand(each_module).index_select(2, places) + layout.first_choice_of_place
        weights = self._cast.gather(-1, chosen).expand(each_module).index_select(2, places)
        if layout.ranks_differ:
            weights = weights * layout.row_exists.take(index)
        up_rows = layout.row_of_choice.take(index)
        down_rows = (up_rows + layout.start_of_place).flatten(2)
        by_group = [count * choices for count in layout.places_of_group]
        by_module = [count * choices for count in layout.places_of_module]
        ups = up_rows.flatten(2).split(by_module, dim=-1)
        return [
            GroupScalings(weight, down, ups[i:j])
            for weight, down, (i, j) in zip(
                weights.flatten(2).split(by_group, dim=-1),
                down_rows.split(by_group, dim=-1),
                layout.module_ranges,
                strict=True,
            )
        ]


class ScalingsContext(threading.local):
    """Holds what a running pass shares among the adapted linear layers of one mixture, for each thread.

    Attributes:
        scalings: Those of the pass; None outside of any.
        later: Computes the scalings from hidden states on the way, where they are not known before the pass.
        shared: The last product that layers with the same input share: their group, the input, and one part
            for each layer.
    """

    def __init__(self) -> None:
        self.scalings: PassScalings | None = None
        self.later: Callable[[Tensor], Scalings] | None = None
        self.shared: tuple[Any, Tensor, Sequence[Tensor]] | None = None

    @contextmanager
    def using(
        self, scalings: PassScalings | None, *, later: Callable[[Tensor], Scalings] | None = None
    ) -> Iterator[None]:
        """Make `scalings` current inside the block, and restore the previous ones after it."""
        previous = self.scalings, self.later
        self.scalings, self.later, self.shared = scalings, later, None
        try:
            yield
        finally:
            (self.scalings, self.later), self.shared = previous, None

    def __reduce__(self) -> tuple[type["ScalingsContext"], tuple[()]]:
        """Copies of a mixture start outside of any pass."""
        return ScalingsContext, ()
