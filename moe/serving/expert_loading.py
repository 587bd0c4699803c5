"""Experts in host memory: read ahead of their requests, in a thread, and kept for when they are wanted again.

S-LoRA (Sheng et al. 2023, arXiv:2311.03285) keeps all adapters in host memory from the start. Here the first
request for one reads it from disk, and those used last stay, up to a budget of bytes.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from torch import Tensor, dtype

from .catalog import ModelCatalog
from .slice_layout import SliceLayout

Packed = tuple[Sequence[str], Tensor]
"""Layers that an expert adapts, and its pages."""


class ExpertLoading:
    """Experts that are being read or were read."""

    def __init__(
        self,
        catalog: ModelCatalog,
        layout: SliceLayout,
        pages: dtype,
        *,
        ahead: int,
        kept_bytes: int,
        ready: Callable[[], None],
    ):
        """Read at most `ahead` experts before they are taken; call `ready` whenever one was read.

        Args:
            catalog: Reads them.
            layout: Lays them out in pages.
            pages: Type of their numbers.
            ahead: Experts that are on their way at once.
            kept_bytes: Most bytes of experts that were taken and stay in host memory.
            ready: Called in the reading thread.
        """
        self._catalog, self._layout, self._dtype = catalog, layout, pages
        self._ahead, self._kept_bytes, self._ready = ahead, kept_bytes, ready
        self._futures: dict[Hashable, Future[Packed]] = {}
        self._kept: OrderedDict[Hashable, Packed] = OrderedDict()
        self.bytes = 0
        """Held by experts that were taken."""
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="expert-loading")

    def want(self, key: Hashable, *, at_once: bool = False) -> None:
        """Start reading an expert, unless enough are on their way and it is not wanted at once."""
        if key in self._futures or key in self._kept:
            return
        if at_once or len(self._futures) < self._ahead:
            future = self._threads.submit(self._read, key)
            self._futures[key] = future
            future.add_done_callback(lambda _: self._ready())

    def is_read(self, key: Hashable) -> bool:
        """Whether it can be taken."""
        return key in self._kept or (key in self._futures and self._futures[key].done())

    def take(self, key: Hashable) -> Packed:
        """Return an expert that was read.

        Raises:
            Exception: What reading it raised.
        """
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        packed = self._futures.pop(key).result()
        self._keep(key, packed)
        return packed

    def keep_only(self, keys: set[Hashable]) -> None:
        """Forget what was read for requests that do not wait any more."""
        for key in [key for key, future in self._futures.items() if key not in keys and future.done()]:
            del self._futures[key]

    def close(self) -> None:
        """Stop reading."""
        self._threads.shutdown(wait=True, cancel_futures=True)

    def _keep(self, key: Hashable, packed: Packed) -> None:
        self._kept[key] = packed
        self.bytes += packed[1].nbytes
        while self.bytes > self._kept_bytes:
            _, (_, oldest) = self._kept.popitem(last=False)
            self.bytes -= oldest.nbytes

    def _read(self, key: Hashable) -> Packed:
        matrices = self._catalog.matrices(key)
        return list(matrices), self._layout.pack(matrices, self._dtype)
