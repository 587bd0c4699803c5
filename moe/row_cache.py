"""Keys and values of both passes as rows of one batch, for decoding in which both passes run at once.

Rows 0..B-1 belong to the mixture pass of B sequences, rows B..2B-1 to their scaling passes. Tokens are
written to given slots, so a wrong proposal is undone by writing its slot again; whatever lies beyond a
query's slot is masked.
"""

from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import Cache
from transformers.cache_utils import CacheLayerMixin


@dataclass
class Slots:
    """Where the tokens of one pass go.

    Attributes:
        of_token: Slot of each token; for some rows, or one row that holds for all.
        length: Slots that are attended to, from the first; those beyond are not in use yet.
    """

    of_token: Int[Tensor, "#row token"]
    length: int
    _flat: dict[tuple[int, int], Int[Tensor, " place"]] = field(default_factory=dict)

    def flat(self, rows: int, slots: int) -> Int[Tensor, " place"]:
        """Number the tokens' places in `rows` rows of `slots` slots, one row after the other."""
        if (rows, slots) not in self._flat:
            starts = torch.arange(0, rows * slots, slots, device=self.of_token.device)[:, None]
            self._flat[rows, slots] = (starts + self.of_token).flatten()
        return self._flat[rows, slots]


class RowCache(Cache):
    """Looks like the cache of a mixture to its layers: places of the base, of its twin, of the router."""

    def __init__(self, *, depth: int, sequences: int, slots: int, router_place: bool):
        """Make an empty cache; memory is taken when the first keys come.

        Args:
            depth: Decoder layers of the base.
            sequences: Number of sequences B.
            slots: Most tokens of one; one more is kept for tokens that only fill a batch up.
            router_place: Whether the router looks back.
        """
        self.depth = depth
        self.sequences = sequences
        self.spare_slot = slots
        self.now = Slots(torch.zeros(1, 0, dtype=torch.long), 0)
        self._stored: dict[int, tuple[Tensor, Tensor]] = {}
        super().__init__(layers=[_Place(self) for _ in range(2 * depth + router_place)])

    def update(
        self,
        key_states: Float[Tensor, "row head token head_dim"],
        value_states: Float[Tensor, "row head token head_dim"],
        layer_idx: int,
        *args: object,
        **kwargs: object,
    ) -> tuple[Float[Tensor, "row head slot head_dim"], Float[Tensor, "row head slot head_dim"]]:
        """Write the tokens of some rows at their slots, and return all slots in use of these rows."""
        rows = key_states.shape[0]
        is_base = layer_idx < self.depth
        first = self.sequences if is_base else 0
        place = layer_idx % self.depth if layer_idx < 2 * self.depth else layer_idx
        stored = self._stored.get(place)
        if stored is None:
            whole = 2 * self.sequences if place < self.depth else self.sequences
            stored = self._empty(whole, key_states), self._empty(whole, value_states)
            self._stored[place] = stored
        kept = []
        for whole, new in zip(stored, (key_states, value_states), strict=True):
            part = whole[first : first + rows]
            places = self.now.flat(rows, self.spare_slot + 1)
            part.flatten(0, 1).index_copy_(0, places, new.transpose(1, 2).flatten(0, 1))
            kept.append(part[:, : self.now.length].transpose(1, 2))
        return kept[0], kept[1]

    def _empty(self, rows: int, states: Tensor) -> Float[Tensor, "row slot head head_dim"]:
        _, heads, _, head_dim = states.shape
        return states.new_zeros(rows, self.spare_slot + 1, heads, head_dim)


class _Place(CacheLayerMixin):
    """Tells the mask functions how much is in use; keys and values are with the whole cache."""

    def __init__(self, whole: RowCache):
        super().__init__()
        self.whole = whole

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Nothing to make."""

    def update(self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object):
        """Never called, since `RowCache` stores."""
        raise NotImplementedError

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """All slots in use, from the first."""
        return self.whole.now.length, 0

    def get_seq_length(self) -> int:
        """Tokens before the pass that is running, where all rows have the same."""
        return self.whole.now.length - self.whole.now.of_token.shape[1]

    def get_max_length(self) -> int:
        """All slots but the spare one."""
        return self.whole.spare_slot


def causal_mask(
    slots: Int[Tensor, "row token"], first: Int[Tensor, " row"], length: int
) -> Bool[Tensor, "row 1 token slot"]:
    """True where a token may look: from its row's first slot to its own.

    Args:
        slots: Slot of each token.
        first: First slot of each row that is not padding.
        length: Slots in use.
    """
    columns = torch.arange(length, device=slots.device)
    return ((columns <= slots[..., None]) & (columns >= first[:, None, None]))[:, None]
