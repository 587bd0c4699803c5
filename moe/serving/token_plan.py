"""Which token uses which expert how much, and the grouped products that follow from it.

All tokens of all requests stand in one row. A token pays for the experts it uses and for no other: tokens are
sorted by expert and cut into blocks of equal size, each block meets the slices of its one expert, and two
batched products serve all blocks of a layer at once, whatever experts, ranks and requests they belong to.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy
import torch
from jaxtyping import Float, Int
from torch import Tensor

from .expert_pool import ExpertPool

BLOCK_SIZES = (1, 2, 4, 8, 16, 32, 64)
GATHER_COST = 6
"""Copying one slice's matrices costs about as much as multiplying them with so many tokens."""


@dataclass(frozen=True)
class Use:
    """Tokens of one request that use one expert."""

    first_token: int
    token_count: int
    rows: Sequence[int]
    """The expert's slices in the pool's table."""
    first_source: int
    """Where the weight of the first token stands among all weights."""
    step: int
    """From one token's weight to the next one's; 0 if all tokens share one."""
    modules: frozenset[int]
    """Layers that the expert adapts."""


class TokenPlan:
    """The blocks of one batch, made on the host; weights may be set later, once routers have answered."""

    def __init__(self, pool: ExpertPool, uses: Sequence[Use]):
        """Group tokens by expert; experts are told apart by their first slice."""
        self._pool = pool
        device = pool.pages.device
        tokens, sources, expert_of_block = _cut_into_blocks(uses)
        rows_of = {use.rows[0]: use.rows for use in uses}
        repeats = numpy.array([len(rows_of[first]) for first in expert_of_block])
        combos = numpy.repeat(numpy.arange(len(tokens)), repeats)
        rows = numpy.concatenate([rows_of[first] for first in expert_of_block])
        self.block_size = tokens.shape[1]
        self.tokens: Int[Tensor, " entry"] = torch.from_numpy(tokens[combos].ravel()).to(device)
        self._sources = torch.from_numpy(sources[combos].ravel()).to(device)
        self._pages = pool.table.index_select(0, torch.from_numpy(rows.astype(numpy.int64)).to(device))
        self.modules = frozenset[int]().union(*(use.modules for use in uses))
        self._weights: Tensor | None = None
        self._shared: tuple[int, Tensor, Tensor] | None = None

    @property
    def has_weights(self) -> bool:
        """Whether `set_weights` was called."""
        return self._weights is not None

    def set_weights(self, weights: Float[Tensor, "module source"]) -> None:
        """Give the weight of every source, one row for all layers or one for each; source 0 is zero."""
        self._weights = weights.index_select(1, self._sources).view(len(weights), -1, self.block_size, 1)

    def add_to(
        self, result: Float[Tensor, "1 token d_out"], x: Float[Tensor, "1 token d_in"], module: int
    ) -> None:
        """Add the experts' weighted updates of one layer to its output, in place."""
        if module not in self.modules:
            return
        layout = self._pool.layout
        place = layout.places[module]
        narrow = self._narrow(x, place.group)[:, :, place.index_in_group]
        assert self._weights is not None
        weights = self._weights[module if len(self._weights) > 1 else 0]
        up = self._matrices(place.start, layout.width, place.pages_a_row, place.d_out)
        wide = torch.bmm(narrow * weights, up)
        result[0].index_add_(0, self.tokens, wide.flatten(0, 1).to(result.dtype))

    def _narrow(self, x: Tensor, group_index: int) -> Float[Tensor, "slice entry member rank"]:
        """Products with the A matrices of all layers that get this input, made once for all of them."""
        if self._shared is not None and self._shared[0] == group_index and self._shared[1] is x:
            return self._shared[2]
        layout = self._pool.layout
        group = layout.groups[group_index]
        rows = len(group.modules) * layout.width
        down = self._matrices(group.start, rows, group.pages_a_row, group.d_in)
        chosen = x[0].to(down.dtype).index_select(0, self.tokens).view(len(down), self.block_size, -1)
        narrow = torch.bmm(chosen, down.mT).unflatten(-1, (len(group.modules), layout.width))
        self._shared = (group_index, x, narrow)
        return narrow

    def _matrices(self, start: int, rows: int, pages_a_row: int, width: int) -> Float[Tensor, "slice row d"]:
        """Rows of every block's slice, copied from their pages."""
        index = self._pages[:, start : start + rows * pages_a_row]
        pages = self._pool.pages.index_select(0, index.flatten())
        return pages.view(len(index), rows, pages_a_row * self._pool.layout.page)[..., :width]


def _cut_into_blocks(uses: Sequence[Use]) -> tuple[numpy.ndarray, numpy.ndarray, numpy.ndarray]:
    """Return tokens (block, entry), their sources, and each block's expert by its first slice.

    Entries that fill up a block repeat its first token with source 0, so that numbers that are not finite
    stay with the request they belong to.
    """
    counts = numpy.array([use.token_count for use in uses])
    firsts = numpy.repeat([use.first_token for use in uses], counts)
    local = numpy.arange(counts.sum()) - numpy.repeat(numpy.cumsum(counts) - counts, counts)
    sources = numpy.repeat([use.first_source for use in uses], counts)
    sources = sources + local * numpy.repeat([use.step for use in uses], counts)
    experts = numpy.repeat([use.rows[0] for use in uses], counts)
    order = numpy.argsort(experts, kind="stable")
    tokens, sources = (firsts + local)[order], sources[order]
    present, sizes = numpy.unique(experts, return_counts=True)
    size = _best_block_size(sizes)
    blocks = -(-sizes // size)
    first_block = numpy.cumsum(blocks) - blocks
    position = numpy.arange(len(tokens)) - numpy.repeat(numpy.cumsum(sizes) - sizes, sizes)
    block, entry = numpy.repeat(first_block, sizes) + position // size, position % size
    token_table = numpy.zeros((blocks.sum(), size), dtype=numpy.int64)
    token_table[block[entry == 0]] = tokens[entry == 0, None]
    token_table[block, entry] = tokens
    source_table = numpy.zeros_like(token_table)
    source_table[block, entry] = sources
    return token_table, source_table, numpy.repeat(present, blocks)


def _best_block_size(tokens_of_expert: numpy.ndarray) -> int:
    costs = [(-(-tokens_of_expert // size)).sum() * (GATHER_COST + size) for size in BLOCK_SIZES]
    return BLOCK_SIZES[int(numpy.argmin(costs))]
