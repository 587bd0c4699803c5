"""Reads experts ahead of their requests, in a thread of its own, while earlier requests decode."""

from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from torch import Tensor, dtype

from .catalog import ModelCatalog
from .slice_layout import SliceLayout

Packed = tuple[Sequence[str], Tensor]
"""Layers that an expert adapts, and its pages."""


class ExpertLoading:
    """Experts that are being read, or were read and wait for room on the device."""

    def __init__(
        self,
        catalog: ModelCatalog,
        layout: SliceLayout,
        pages: dtype,
        *,
        ahead: int,
        ready: Callable[[], None],
    ):
        """Read at most `ahead` experts before they are taken; call `ready` whenever one was read."""
        self._catalog, self._layout, self._dtype = catalog, layout, pages
        self._ahead, self._ready = ahead, ready
        self._futures: dict[Hashable, Future[Packed]] = {}
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="expert-loading")

    def want(self, key: Hashable, *, at_once: bool = False) -> None:
        """Start reading an expert, unless enough are on their way and it is not wanted at once."""
        if key not in self._futures and (at_once or len(self._futures) < self._ahead):
            future = self._threads.submit(self._read, key)
            self._futures[key] = future
            future.add_done_callback(lambda _: self._ready())

    def is_read(self, key: Hashable) -> bool:
        """Whether it can be taken."""
        return key in self._futures and self._futures[key].done()

    def take(self, key: Hashable) -> Packed:
        """Return an expert that was read, and forget it.

        Raises:
            Exception: What reading it raised.
        """
        return self._futures.pop(key).result()

    def keep_only(self, keys: set[Hashable]) -> None:
        """Forget experts that no waiting request wants any more."""
        for key in [key for key, future in self._futures.items() if key not in keys and future.done()]:
            del self._futures[key]

    def close(self) -> None:
        """Stop reading."""
        self._threads.shutdown(wait=True, cancel_futures=True)

    def _read(self, key: Hashable) -> Packed:
        matrices = self._catalog.matrices(key)
        return list(matrices), self._layout.pack(matrices, self._dtype)
