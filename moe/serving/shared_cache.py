"""transformers' paged cache, which takes back what idle experts hold before it says that it is full."""

from typing import Any

from transformers.generation.continuous_batching.cache import PagedAttentionCache
from transformers.generation.continuous_batching.requests import RequestState

from .expert_pool import ExpertPool


class SharedCache(PagedAttentionCache):
    """A paged cache that shares its sectors with an expert pool.

    Attributes:
        experts: The pool; None until it is made.
    """

    def __init__(self, *args: Any, **kwargs: Any):
        """Take what a paged cache takes."""
        super().__init__(*args, **kwargs)
        self.experts: ExpertPool | None = None

    def sectors_for(self, tokens: int) -> int:
        """Most sectors that keys and values of so many tokens take."""
        needed = 0
        for allocator in self.cache_allocators.values():
            blocks = -(-tokens // allocator.tokens_per_page)
            needed += -(-blocks // allocator.blocks_per_sector)
        return needed

    def can_store_request_tokens(self, state: RequestState, request_len: int, dry_run: bool = False) -> bool:
        """As the paged cache's, after evicting idle experts if that helps."""
        if super().can_store_request_tokens(state, request_len, dry_run):
            return True
        if self.experts is None or not self.experts.make_room(self.sectors_for(request_len)):
            return False
        return super().can_store_request_tokens(state, request_len, dry_run)
