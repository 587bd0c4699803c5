"""Keys and values of both passes side by side, for decoding in which both passes run as one.

A slot holds a token of the mixture pass and the same token of the scaling pass, one after the other, so that
all slots in use are one piece of memory. Tokens are written to given slots: a wrong proposal is undone by
writing its slot again. Whatever a token must not see, the mask hides.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import Cache
from transformers.cache_utils import CacheLayerMixin


@dataclass(frozen=True)
class Step:
    """Where the tokens of one pass go.

    Attributes:
        base_slots: Slot of each token of the scaling pass.
        mixture_slots: Slot of each token of the mixture pass.
        length: Slots in use, from the first.
    """

    base_slots: Int[Tensor, "sequence base_token"]
    mixture_slots: Int[Tensor, "sequence mixture_token"]
    length: int

    @property
    def slots(self) -> Int[Tensor, "sequence token"]:
        """All slots, the scaling pass first, as the tokens stand in the batch."""
        return torch.cat([self.base_slots, self.mixture_slots], dim=1)

    @cached_property
    def places(self) -> Int[Tensor, "sequence token"]:
        """Where in its sequence's memory each token goes."""
        return torch.cat([2 * self.base_slots + 1, 2 * self.mixture_slots], dim=1)

    def mask(self, first: Int[Tensor, " sequence"]) -> Bool[Tensor, "sequence 1 token place"]:
        """True where a token may look: at slots of its own pass, from its sequence's first to its own.

        Args:
            first: First slot of each sequence that is not padding.
        """
        seen = _from_first_to_own(self.places, 2 * first, 2 * self.length)
        columns = torch.arange(2 * self.length, device=self.places.device)
        return seen & (columns % 2 == self.places[:, None, :, None] % 2)

    def base_mask(self, first: Int[Tensor, " sequence"]) -> Bool[Tensor, "sequence 1 base_token slot"]:
        """The same for what is kept of the scaling pass alone."""
        return _from_first_to_own(self.base_slots, first, self.length)


def _from_first_to_own(
    own: Int[Tensor, "sequence token"], first: Int[Tensor, " sequence"], count: int
) -> Bool[Tensor, "sequence 1 token column"]:
    columns = torch.arange(count, device=own.device)
    return ((columns <= own[..., None]) & (columns >= first[:, None, None]))[:, None]


class PairCache(Cache):
    """Looks like the cache of a mixture to its layers: places of the base, of its twin, of the router.

    While prompts are read, base and twin run one after the other, as in any mixture. After that only the twin
    runs, on tokens of both passes.
    """

    def __init__(self, *, depth: int, sequences: int, slots: int, router_place: bool):
        """Make an empty cache; memory is taken when the first keys come.

        Args:
            depth: Decoder layers of the base.
            sequences: Number of sequences.
            slots: Most tokens of one; one more is kept for tokens that only fill a batch up.
            router_place: Whether the router looks back.
        """
        self.depth = depth
        self.sequences = sequences
        self.spare_slot = slots
        self.length = 0
        self._places: Int[Tensor, " token"] | None = None
        self._base_places: Int[Tensor, " token"] | None = None
        self._stored: dict[int, tuple[Tensor, Tensor]] = {}
        super().__init__(layers=[_Place(self) for _ in range(2 * depth + router_place)])

    def begin(self, step: Step) -> None:
        """Say where the tokens of the coming pass go."""
        rows = torch.arange(self.sequences, device=step.base_slots.device)[:, None] * (self.spare_slot + 1)
        self.length = step.length
        self._places = (step.places + 2 * rows).flatten()
        self._base_places = (step.base_slots + rows).flatten()

    def update(
        self,
        key_states: Float[Tensor, "sequence head token head_dim"],
        value_states: Float[Tensor, "sequence head token head_dim"],
        layer_idx: int,
        *args: object,
        **kwargs: object,
    ) -> tuple[Float[Tensor, "sequence head _ head_dim"], Float[Tensor, "sequence head _ head_dim"]]:
        """Write tokens, and return all that is in use of their layer."""
        of_router = layer_idx >= 2 * self.depth
        layer, twins = (layer_idx, 1) if of_router else (layer_idx % self.depth, 2)
        if layer not in self._stored:
            size = (self.sequences, twins * (self.spare_slot + 1), key_states.shape[1])
            self._stored[layer] = (
                key_states.new_zeros(*size, key_states.shape[3]),
                value_states.new_zeros(*size, value_states.shape[3]),
            )
        if self._places is None or self._base_places is None:
            self.length = key_states.shape[2]
            first = 0 if of_router or layer_idx >= self.depth else 1
            for whole, new in zip(self._stored[layer], (key_states, value_states), strict=True):
                whole[:, first : twins * self.length : twins] = new.transpose(1, 2)
            return key_states, value_states
        places = self._base_places if of_router else self._places
        kept = []
        for whole, new in zip(self._stored[layer], (key_states, value_states), strict=True):
            whole.flatten(0, 1).index_copy_(0, places, new.transpose(1, 2).flatten(0, 1))
            kept.append(whole[:, : twins * self.length].transpose(1, 2))
        return kept[0], kept[1]


class _Place(CacheLayerMixin):
    """Tells the mask functions, while prompts are read, that nothing came before."""

    def __init__(self, whole: PairCache):
        super().__init__()
        self.whole = whole

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Nothing to make."""

    def update(self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object):
        """Never called, since `PairCache` stores."""
        raise NotImplementedError

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """The new tokens alone."""
        return query_length, 0

    def get_seq_length(self) -> int:
        """Nothing yet."""
        return 0

    def get_max_length(self) -> int:
        """All slots but the spare one."""
        return self.whole.spare_slot
