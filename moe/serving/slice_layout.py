"""How an expert lies in pages: the page is one row of the key/value cache, so both can share one pool.

S-LoRA (Sheng et al. 2023, arXiv:2311.03285) keeps experts and the key/value cache in one pool of pages, each
as wide as the model. With grouped-query attention a cache row is narrower than that. Here a page has
`key/value heads x head_dim` elements, which divides all widths of Llama 3; other widths waste the rest of
their last page.

An expert of rank r is cut into *slices* of `width` ranks each, the last one filled up with zeros. All slices
have one layout, so experts of different ranks stand in one batch without being padded to the largest.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from ..expert_stacks import INPUT_SHARERS

Matrices = Mapping[str, tuple[Tensor, Tensor]]
"""A (rank, d_in) and B (d_out, rank), alpha / rank multiplied in, by the name of the adapted layer."""


@dataclass(frozen=True)
class Place:
    """Where the B matrix of one layer lies in a slice, and where its A matrix lies in its group's."""

    name: str
    group: int
    index_in_group: int
    start: int
    pages_a_row: int
    d_out: int


@dataclass(frozen=True)
class Group:
    """Layers with the same input; their A matrices follow each other, so one product serves all."""

    modules: tuple[int, ...]
    start: int
    pages_a_row: int
    d_in: int


class SliceLayout:
    """Logical pages of a slice: for each group its A matrices, then the B matrices of its layers.

    Attributes:
        page: Elements of a page.
        width: Ranks of a slice.
        places: One for each linear layer that may be adapted.
        groups: In the order of the layers.
        page_count: Logical pages of a slice.
    """

    def __init__(self, linears: Mapping[str, nn.Linear], *, page: int, width: int):
        """Lay out all linear layers, by name and in the order in which they run."""
        self.page, self.width = page, width
        self.places: list[Place] = []
        self.groups: list[Group] = []
        start = 0
        for _, members in groupby(linears.items(), key=lambda item: _input_of(*item)):
            start = self._add_group(list(members), start)
        self.page_count = start
        self.index_of = {place.name: index for index, place in enumerate(self.places)}
        self._pages_of: dict[frozenset[str], Tensor] = {}

    def _add_group(self, members: Sequence[tuple[str, nn.Linear]], start: int) -> int:
        d_in = members[0][1].in_features
        first, group = len(self.places), len(self.groups)
        pages_a_row = -(-d_in // self.page)
        self.groups.append(Group(tuple(range(first, first + len(members))), start, pages_a_row, d_in))
        start += len(members) * self.width * pages_a_row
        for index, (name, linear) in enumerate(members):
            pages = -(-linear.out_features // self.page)
            self.places.append(Place(name, group, index, start, pages, linear.out_features))
            start += self.width * pages
        return start

    def slice_count(self, ranks: Sequence[int]) -> int:
        """Slices of an expert whose layers have these ranks."""
        return -(-max(ranks) // self.width)

    def pages_of(self, modules: Sequence[str]) -> Int[Tensor, " page"]:
        """Logical pages that an expert fills which adapts these layers; the others stay zero."""
        names = frozenset(modules)
        if names not in self._pages_of:
            self._pages_of[names] = self._find_pages(names)
        return self._pages_of[names]

    def _find_pages(self, modules: frozenset[str]) -> Int[Tensor, " page"]:
        parts = []
        for place in (place for place in self.places if place.name in modules):
            group = self.groups[place.group]
            rows = self.width * group.pages_a_row
            down = group.start + place.index_in_group * rows
            parts += [torch.arange(down, down + rows)]
            parts += [torch.arange(place.start, place.start + self.width * place.pages_a_row)]
        return torch.cat(parts).sort().values

    def pack(self, matrices: Matrices, dtype: torch.dtype) -> Float[Tensor, "slice page element"]:
        """Return the pages that an expert fills, in the order of `pages_of`.

        Args:
            matrices: Of the expert.
            dtype: Of the pages.
        """
        count = self.slice_count([down.shape[0] for down, _ in matrices.values()])
        parts = []
        for group in self.groups:
            adapted = [
                place for place in map(self.places.__getitem__, group.modules) if place.name in matrices
            ]
            for place in adapted:
                parts.append(self._pages(matrices[place.name][0], count, group.pages_a_row, dtype))
            for place in adapted:
                parts.append(self._pages(matrices[place.name][1].T, count, place.pages_a_row, dtype))
        return torch.cat(parts, dim=1)

    def _pages(
        self, rows: Float[Tensor, "rank d"], count: int, pages_a_row: int, dtype: torch.dtype
    ) -> Float[Tensor, "slice page element"]:
        """Fill up rows to whole pages, and ranks to whole slices."""
        rank, width = rows.shape
        missing = (0, pages_a_row * self.page - width, 0, count * self.width - rank)
        if any(missing):
            rows = functional.pad(rows, missing)
        return rows.to(dtype).reshape(count, self.width * pages_a_row, self.page)


def _input_of(name: str, linear: nn.Linear) -> tuple[str, object, int]:
    parent, _, leaf = name.rpartition(".")
    sharers = next((one for one in INPUT_SHARERS if leaf in one), name)
    return parent, sharers, linear.in_features
