"""transformers' paged cache, which takes back what idle experts hold before it says that it is full."""

from collections.abc import Sequence
from typing import Any, cast

from jaxtyping import Float, Int
from torch import Tensor
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

    def store(
        self,
        keys: Float[Tensor, "kv_head token head_dim"],
        values: Float[Tensor, "kv_head token head_dim"],
        layer: int,
        write_index: Sequence[Int[Tensor, " token"]],
    ) -> tuple[Float[Tensor, "key_row kv_head head_dim"], Float[Tensor, "value_row kv_head head_dim"]]:
        """Store new keys and values of a layer, and return all that the layer keeps.

        Unlike `update` it does not copy what a request has seen, since `packed_attention` reads it in place.
        """
        # Everything but full attention was refused when the model was built, so there is one allocator.
        (allocator,) = self.cache_allocators.values()
        all_keys, all_values = cast(Any, allocator)._kv_token_views[layer]
        all_keys.index_copy_(0, write_index[0], keys.transpose(0, 1))
        all_values.index_copy_(0, write_index[0], values.transpose(0, 1))
        return all_keys, all_values

    @property
    def free_sectors(self) -> int:
        """Sectors in which nothing is kept, those included that an allocator has at hand."""
        allocators = self.cache_allocators.values()
        at_hand = (self.pool.count_free_blocks(one.index) // one.blocks_per_sector for one in allocators)
        return self.pool.num_free_sectors + sum(at_hand)

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
        wanted = sum(
            one.needs_new_sectors(state.request_id, state.current_len(), request_len)
            for one in self.cache_allocators.values()
        )
        if self.experts is None or not self.experts.make_room(wanted):
            return False
        return super().can_store_request_tokens(state, request_len, dry_run)
