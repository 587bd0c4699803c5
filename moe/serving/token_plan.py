"""Which token uses which experts how much, and the grouped products that follow from it.

All tokens of all requests stand in one row. A token pays for the experts it uses and for no other: tokens
that use the same experts are cut into blocks of equal size, the experts' slices into chunks of equal size,
and two batched products serve all pairs of block and chunk of a layer at once, whatever experts, ranks and
requests they belong to.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy
import torch
from jaxtyping import Float, Int
from torch import Tensor

from .expert_pool import ExpertPool

BLOCK_SIZES = (1, 2, 4, 8, 16, 32, 64)
CHUNK_SIZES = (1, 2, 4, 8, 16, 32)
GATHER_COST = 6
"""Copying one slice's matrices costs about as much as multiplying them with so many tokens."""
TOKEN_COST = 2
"""Fetching a token's input and adding its output back costs about as much as so many slices of products."""


@dataclass(frozen=True)
class Use:
    """Tokens of one request, and the experts that they use together."""

    first_token: int
    token_count: int
    rows: tuple[int, ...]
    """The experts' slices in the pool's table."""
    sources: tuple[int, ...]
    """Where the first token's weight of each slice stands among all weights."""
    step: int
    """From one token's weights to the next one's; 0 if all tokens share them."""
    modules: frozenset[int]
    """Layers that any of the experts adapts."""


class TokenPlan:
    """The blocks of one batch, made on the host; weights may be set later, once routers have answered."""

    def __init__(self, pool: ExpertPool, uses: Sequence[Use]):
        """Put together tokens that use the same slices."""
        self._pool = pool
        device = pool.pages.device
        tables = _Tables(uses, zero_row=pool.zero_row)
        self.block_size, self.chunk_size = tables.block_size, tables.chunk_size
        self.tokens: Int[Tensor, " entry"] = torch.from_numpy(tables.tokens.ravel()).to(device)
        self._sources = torch.from_numpy(tables.sources.ravel()).to(device)
        rows = torch.from_numpy(tables.rows.ravel()).to(device)
        self._pages = pool.table.index_select(0, rows).unflatten(0, (-1, self.chunk_size))
        self.modules = frozenset[int]().union(*(use.modules for use in uses))
        self._weights: Tensor | None = None
        self._shared: tuple[int, Tensor, Tensor] | None = None

    @property
    def has_weights(self) -> bool:
        """Whether `set_weights` was called."""
        return self._weights is not None

    def set_weights(self, weights: Float[Tensor, "module source"]) -> None:
        """Give the weight of every source, one row for all layers or one for each; source 0 is zero."""
        shape = (len(weights), -1, self.block_size, self.chunk_size, 1)
        self._weights = weights.index_select(1, self._sources).view(shape)

    def add_to(
        self, result: Float[Tensor, "1 token d_out"], x: Float[Tensor, "1 token d_in"], module: int
    ) -> None:
        """Add the experts' weighted updates of one layer to its output, in place."""
        if module not in self.modules:
            return
        assert self._weights is not None
        layout = self._pool.layout
        place = layout.places[module]
        narrow = self._narrow(x, place.group)[:, :, :, place.index_in_group]
        weights = self._weights[module if len(self._weights) > 1 else 0]
        up = self._matrices(place.start, layout.width, place.pages_a_row, place.d_out)
        wide = torch.bmm((narrow * weights).flatten(2), up)
        result[0].index_add_(0, self.tokens, wide.flatten(0, 1).to(result.dtype))

    def _narrow(self, x: Tensor, group_index: int) -> Float[Tensor, "pair entry slice member rank"]:
        """Products with the A matrices of all layers that get this input, made once for all of them."""
        if self._shared is not None and self._shared[0] == group_index and self._shared[1] is x:
            return self._shared[2]
        layout = self._pool.layout
        group = layout.groups[group_index]
        rows = len(group.modules) * layout.width
        down = self._matrices(group.start, rows, group.pages_a_row, group.d_in)
        chosen = x[0].to(down.dtype).index_select(0, self.tokens).view(len(down), self.block_size, -1)
        shape = (self.chunk_size, len(group.modules), layout.width)
        narrow = torch.bmm(chosen, down.mT).unflatten(-1, shape)
        self._shared = (group_index, x, narrow)
        return narrow

    def _matrices(
        self, start: int, rows: int, pages_a_row: int, width: int
    ) -> Float[Tensor, "pair slice_row d"]:
        """Rows of every pair's slices, copied from their pages."""
        index = self._pages[:, :, start : start + rows * pages_a_row]
        pages = self._pool.pages.index_select(0, index.flatten())
        return pages.view(len(index), self.chunk_size * rows, pages_a_row * self._pool.layout.page)[
            ..., :width
        ]


class _Tables:
    """Tokens (pair, entry), slices (pair, slice) and sources (pair, entry, slice) of all pairs.

    Entries that fill up a block repeat its first token, and slices that fill up a chunk are zero; their
    source is 0. So numbers that are not finite stay with the request they belong to.
    """

    def __init__(self, uses: Sequence[Use], *, zero_row: int):
        units = {rows: index for index, rows in enumerate(dict.fromkeys(use.rows for use in uses))}
        slices = numpy.array([len(rows) for rows in units])
        unit_of_use = numpy.array([units[use.rows] for use in uses])
        counts = numpy.array([use.token_count for use in uses])
        use_of_entry = numpy.repeat(numpy.arange(len(uses)), counts)
        local = numpy.arange(counts.sum()) - numpy.repeat(numpy.cumsum(counts) - counts, counts)
        order = numpy.argsort(unit_of_use[use_of_entry], kind="stable")
        use_of_entry, local = use_of_entry[order], local[order]
        sizes = numpy.bincount(unit_of_use, weights=counts).astype(numpy.int64)
        self.block_size, self.chunk_size = _best_sizes(sizes, slices)
        self._rows = list(units)
        self._blocks(uses, sizes, use_of_entry, local)
        self._pairs(uses, slices, zero_row)

    def _blocks(
        self, uses: Sequence[Use], sizes: numpy.ndarray, use_of_entry: numpy.ndarray, local: numpy.ndarray
    ) -> None:
        """Cut the tokens of each unit into blocks."""
        blocks = -(-sizes // self.block_size)
        self._unit_of_block = numpy.repeat(numpy.arange(len(sizes)), blocks)
        first_block = numpy.cumsum(blocks) - blocks
        position = numpy.arange(len(local)) - numpy.repeat(numpy.cumsum(sizes) - sizes, sizes)
        block = numpy.repeat(first_block, sizes) + position // self.block_size
        entry = position % self.block_size
        tokens = numpy.array([use.first_token for use in uses])[use_of_entry] + local
        self._tokens = numpy.zeros((blocks.sum(), self.block_size), dtype=numpy.int64)
        self._tokens[block[entry == 0]] = tokens[entry == 0, None]
        self._tokens[block, entry] = tokens
        self._uses = numpy.full_like(self._tokens, -1)
        self._uses[block, entry] = use_of_entry
        self._local = numpy.zeros_like(self._tokens)
        self._local[block, entry] = local

    def _pairs(self, uses: Sequence[Use], slices: numpy.ndarray, zero_row: int) -> None:
        """Meet each block with the chunks of its unit."""
        chunks = -(-slices // self.chunk_size)
        width = chunks.max() * self.chunk_size
        rows = numpy.full((len(self._rows), width), zero_row, dtype=numpy.int64)
        for index, its_rows in enumerate(self._rows):
            rows[index, : len(its_rows)] = its_rows
        # The last line is for entries that fill up a block.
        first = numpy.zeros((len(uses) + 1, width), dtype=numpy.int64)
        step = numpy.zeros_like(first)
        for index, use in enumerate(uses):
            first[index, : len(use.sources)] = use.sources
            step[index, : len(use.sources)] = use.step
        repeats = chunks[self._unit_of_block]
        block = numpy.repeat(numpy.arange(len(repeats)), repeats)
        chunk = numpy.arange(len(block)) - numpy.repeat(numpy.cumsum(repeats) - repeats, repeats)
        columns = chunk[:, None] * self.chunk_size + numpy.arange(self.chunk_size)
        self.rows = rows[self._unit_of_block[block][:, None], columns]
        self.tokens = self._tokens[block]
        use = self._uses[block][:, :, None]
        self.sources = (
            first[use, columns[:, None]] + self._local[block][:, :, None] * step[use, columns[:, None]]
        )


def _best_sizes(tokens: numpy.ndarray, slices: numpy.ndarray) -> tuple[int, int]:
    """Sizes of block and chunk with the least work for so many tokens and slices of each unit."""
    costs = {}
    for block in BLOCK_SIZES:
        blocks = -(-tokens // block)
        for chunk in CHUNK_SIZES:
            pairs = int((blocks * -(-slices // chunk)).sum())
            costs[block, chunk] = pairs * (chunk * (GATHER_COST + block) + TOKEN_COST * block)
    return min(costs, key=lambda sizes: costs[sizes])
