"""Experts on the device, in pages of the key/value cache's own memory: one budget for both.

transformers' paged cache hands out *sectors* of one flat tensor to its allocators. The pool takes sectors
from the same store for experts and gives them back when it evicts one, so what experts do not need is cache,
and what the cache does not need can keep experts (S-LoRA's unified paging).
"""

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor
from transformers.generation.continuous_batching.cache import PagedAttentionCache

from .slice_layout import SliceLayout

Key = Any
"""What names one version of an expert; hashable."""


@dataclass
class Resident:
    """An expert on the device."""

    slices: list[int]
    """Rows of the page table, one a slice."""
    modules: frozenset[int]
    """Layers that it adapts, by their number in the layout."""
    sectors: list[int]
    bytes: int
    users: int = 0
    """Running requests that use it; it is not evicted while there are any."""


@dataclass
class PoolCounts:
    """What happened since the start."""

    loads: int = 0
    evictions: int = 0


class ExpertPool:
    """Loads experts into pages and evicts those that were not used for longest.

    Attributes:
        layout: How a slice lies in its pages.
        pages: The cache's memory as (page, element).
        counts: Loads and evictions so far.
        resident: Least recently used first.
        version: Changes with every load and eviction.
        sectors_used: Sectors that hold experts.
        sectors_pinned: Those of experts that running requests use.
        capacity: Sectors for experts, keys and values together.
        table: Physical page of each logical page of a slice.
        zero_row: A slice of zeros in the table.
    """

    def __init__(self, cache: PagedAttentionCache, layout: SliceLayout):
        """Share the memory of `cache`; one sector is kept as the zeros of layers that an expert lacks."""
        self._cache, self.layout = cache, layout
        memory = cache.cache_tensor.view(cache.dtype)
        usable = memory.numel() // layout.page * layout.page
        self.pages = memory[:usable].view(-1, layout.page)
        self.pages_of_sector = cache.bytes_per_sector // (layout.page * cache.dtype.itemsize)
        self.counts = PoolCounts()
        self.version = self.sectors_used = self.sectors_pinned = 0
        self.resident: OrderedDict[Key, Resident] = OrderedDict()
        zeros = cache.pool.free_sectors.pop()
        self.capacity = cache.pool.num_free_sectors
        self._zero_page = zeros * self.pages_of_sector
        self.pages[self._zero_page : self._zero_page + self.pages_of_sector].zero_()
        self._free_rows: list[int] = []
        self.table: Int[Tensor, "row page"] = self._new_rows(64)
        (self.zero_row,) = self._take_rows(1)

    def sectors_for(self, modules: Sequence[str], ranks: Sequence[int]) -> int:
        """Sectors that an expert takes which adapts these layers with these ranks."""
        pages = len(self.layout.pages_of(modules)) * self.layout.slice_count(ranks)
        return -(-pages // self.pages_of_sector)

    @property
    def evictable_sectors(self) -> int:
        """Sectors of experts that no running request uses."""
        return self.sectors_used - self.sectors_pinned

    def load(self, key: Key, modules: Sequence[str], packed: Tensor) -> bool:
        """Bring an expert to the device; False if there is no room, even after evicting idle experts.

        Args:
            key: Names it.
            modules: Layers that it adapts.
            packed: What `SliceLayout.pack` returned for it: (slice, page, element).
        """
        needed = -(-packed.shape[0] * packed.shape[1] // self.pages_of_sector)
        if not self.make_room(needed):
            return False
        adapted = frozenset(self.layout.index_of[name] for name in modules)
        sectors = [self._cache.pool.free_sectors.pop() for _ in range(needed)]
        rows = self._take_rows(len(packed))
        try:
            self._write(modules, packed, sectors, rows)
        except BaseException:
            self._cache.pool.free_sectors.extend(sectors)
            self._free_rows.extend(rows)
            raise
        self.resident[key] = Resident(rows, adapted, sectors, needed * self._cache.bytes_per_sector)
        self.sectors_used += needed
        self.counts.loads += 1
        self.version += 1
        return True

    def _write(self, modules: Sequence[str], packed: Tensor, sectors: list[int], rows: list[int]) -> None:
        starts = torch.tensor(sectors) * self.pages_of_sector
        physical = (starts[:, None] + torch.arange(self.pages_of_sector)).flatten()
        physical = physical[: packed.shape[0] * packed.shape[1]].view(packed.shape[:2])
        device = self.pages.device
        source = packed.to(device=device, dtype=self.pages.dtype, non_blocking=True)
        self.pages.index_copy_(0, physical.flatten().to(device), source.flatten(0, 1))
        logical = self.layout.pages_of(modules)
        for row, its_pages in zip(rows, physical, strict=True):
            self.table[row].fill_(self._zero_page)
            self.table[row, logical.to(device)] = its_pages.to(device=device, dtype=torch.int32)
        if device.type == "cuda":
            # Batches run on a stream of their own, which must not read pages before they are written.
            torch.cuda.current_stream(device).synchronize()

    def use(self, key: Key) -> None:
        """A request that uses the expert starts."""
        one = self.resident[key]
        if not one.users:
            self.sectors_pinned += len(one.sectors)
        one.users += 1
        self.resident.move_to_end(key)

    def leave(self, key: Key) -> None:
        """A request that used the expert has ended."""
        one = self.resident[key]
        one.users -= 1
        if not one.users:
            self.sectors_pinned -= len(one.sectors)

    def make_room(self, sectors: int) -> bool:
        """Evict idle experts until so many sectors are free; whether that was enough."""
        pool = self._cache.pool
        if pool.num_free_sectors < sectors:
            pool.try_to_free_sectors()
        if pool.num_free_sectors + self.evictable_sectors < sectors:
            return False
        for key in [key for key, one in self.resident.items() if not one.users]:
            if pool.num_free_sectors >= sectors:
                break
            self.evict(key)
        return True

    def evict(self, key: Key) -> None:
        """Take an idle expert from the device."""
        one = self.resident.pop(key)
        self.sectors_used -= len(one.sectors)
        self._cache.pool.free_sectors.extend(one.sectors)
        self._free_rows.extend(one.slices)
        self.counts.evictions += 1
        self.version += 1

    def not_finite(self, keys: Iterable[Key]) -> list[Key]:
        """Which of these resident experts hold numbers that are not finite."""
        wrong = []
        for key in keys:
            pages = self.table[self.resident[key].slices].flatten().unique()
            if not bool(torch.isfinite(self.pages.index_select(0, pages)).all()):
                wrong.append(key)
        return wrong

    def _take_rows(self, count: int) -> list[int]:
        if len(self._free_rows) < count:
            more = self._new_rows(max(count, len(self.table)), len(self.table))
            self.table = torch.cat([self.table, more])
        return [self._free_rows.pop() for _ in range(count)]

    def _new_rows(self, count: int, start: int = 0) -> Int[Tensor, "row page"]:
        self._free_rows.extend(range(start, start + count))
        shape = (count, self.layout.page_count)
        return torch.full(shape, self._zero_page, dtype=torch.int32, device=self.pages.device)
