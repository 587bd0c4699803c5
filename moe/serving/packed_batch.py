"""The arguments of a packed pass, and the same for some of its requests only."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from .packed_attention import Segments


@dataclass(frozen=True)
class PackedBatch:
    """What transformers' continuous batching hands to a model, with the lengths known on the host."""

    kwargs: dict[str, Any]
    query_lengths: Sequence[int]
    """New tokens of each request."""
    key_lengths: Sequence[int]
    """Tokens of each request so far, the new ones included."""

    @property
    def device(self) -> torch.device:
        """Where the tokens are."""
        return self.kwargs["input_ids"].device

    def model_inputs(self) -> dict[str, Any]:
        """Arguments for the base or the twin."""
        left_out = ("logits_indices", "logits_processor_args", "logits_to_keep")
        inputs = {name: value for name, value in self.kwargs.items() if name not in left_out}
        (read_index,) = self.kwargs["read_index"]
        return inputs | {"segments": Segments(self.query_lengths, self.key_lengths, read_index)}

    def token_range(self, request: int) -> range:
        """Places of a request's new tokens in the row."""
        start = sum(self.query_lengths[:request])
        return range(start, start + self.query_lengths[request])

    def select(self, requests: Sequence[int]) -> "PackedBatch":
        """The batch of some requests, which read and write the same places of the cache.

        Args:
            requests: Their numbers, rising.
        """
        if len(requests) == len(self.query_lengths):
            return self
        queries = [self.query_lengths[one] for one in requests]
        keys = [self.key_lengths[one] for one in requests]
        new = _places(self.query_lengths, requests, self.device)
        read = _places(self.key_lengths, requests, self.device)
        kwargs = self.kwargs
        ends = {kind: _ends(keys, one) for kind, one in kwargs["cu_seq_lens_k"].items()}
        chosen = {
            "input_ids": kwargs["input_ids"][:, new],
            "position_ids": kwargs["position_ids"][:, new],
            "cu_seq_lens_q": _ends(queries, kwargs["cu_seq_lens_q"]),
            "max_length_q": max(queries),
            "cu_seq_lens_k": ends,
            "max_length_k": dict.fromkeys(kwargs["max_length_k"], max(keys)),
            "write_index": [one[new] for one in kwargs["write_index"]],
            "read_index": [one[read] if len(one) else one for one in kwargs["read_index"]],
        }
        return PackedBatch(kwargs | chosen, queries, keys)


def _places(lengths: Sequence[int], requests: Sequence[int], device: torch.device) -> Int[Tensor, " place"]:
    wanted = torch.zeros(len(lengths), dtype=torch.bool)
    wanted[list(requests)] = True
    return wanted.repeat_interleave(torch.tensor(lengths)).nonzero().flatten().to(device)


def _ends(lengths: Sequence[int], like: Tensor) -> Int[Tensor, " end"]:
    ends = torch.tensor([0, *lengths], device=like.device).cumsum(0)
    return ends.to(like.dtype)
