"""Attention over a packed batch in which every request sees its own tokens only.

transformers' paged attention without a flash kernel scores all new tokens against the keys of all requests
and masks what is foreign: work and mask grow with the square of the number of requests, and a number that is
not finite in one request reaches all others (0 times NaN is NaN). Here rows that decode one token share one
batched product over their own keys, and each prompt gets one of its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface

NAME = "finlora_packed"
"""Under which transformers knows it."""


@dataclass(frozen=True)
class Prompt:
    """A request that brings several tokens at once."""

    queries: slice
    keys: slice
    mask: Bool[Tensor, "query key"] | None
    """None for a prompt from its first token on, which is causal without more ado."""


class Segments:
    """Where the tokens of each request stand among new tokens and among all keys that are read."""

    def __init__(self, query_lengths: Sequence[int], key_lengths: Sequence[int], device: torch.device):
        """Take how many new tokens and how many keys, the new ones included, each request has."""
        self.prompts: list[Prompt] = []
        rows, starts, lengths = [], [], []
        query_start = key_start = 0
        for queries, keys in zip(query_lengths, key_lengths, strict=True):
            if queries == 1:
                rows.append(query_start)
                starts.append(key_start)
                lengths.append(keys)
            else:
                self.prompts.append(_prompt(query_start, queries, key_start, keys, device))
            query_start, key_start = query_start + queries, key_start + keys
        self.rows: Int[Tensor, " row"] = torch.tensor(rows, device=device, dtype=torch.long)
        length = torch.tensor(lengths, device=device, dtype=torch.long)[:, None]
        columns = torch.arange(max(lengths, default=0), device=device)[None]
        # Beyond its end a row reads its own last key again, masked, and never another request's.
        index = torch.tensor(starts, device=device, dtype=torch.long)[:, None]
        self.keys: Int[Tensor, "row key"] = index + columns.minimum(length - 1)
        self.mask: Bool[Tensor, "row 1 1 key"] = (columns < length)[:, None, None]


def _prompt(query_start: int, queries: int, key_start: int, keys: int, device: torch.device) -> Prompt:
    mask = None
    if keys > queries:
        mask = torch.ones(queries, keys, dtype=torch.bool, device=device).tril(keys - queries)
    query_slice = slice(query_start, query_start + queries)
    return Prompt(query_slice, slice(key_start, key_start + keys), mask)


def packed_attention(
    module: nn.Module,
    query: Float[Tensor, "1 head token head_dim"],
    key: Float[Tensor, "1 kv_head token head_dim"],
    value: Float[Tensor, "1 kv_head token head_dim"],
    attention_mask: Any,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Float[Tensor, "1 token head head_dim"], None]:
    """Store the new keys and values in the paged cache, and attend to each request's own.

    Args:
        module: The attention layer, which knows its place in the cache.
        query: Of all requests' new tokens, one request after the other.
        key: As `query`.
        value: As `query`.
        attention_mask: Not used; `segments` says what belongs together.
        scaling: Of the scores; by default 1 / sqrt(head_dim).
        **kwargs: `cache` and `segments`, beside what the cache's update reads.
    """
    segments: Segments = kwargs["segments"]
    key, value = kwargs["cache"].update(key, value, layer_idx=module.layer_idx, kwargs=kwargs)
    result = torch.empty_like(query)
    if len(segments.rows):
        result[0, :, segments.rows] = _decode(query[0], key[0], value[0], segments, scaling).transpose(0, 1)
    for one in segments.prompts:
        result[:, :, one.queries] = scaled_dot_product_attention(
            query[:, :, one.queries],
            key[:, :, one.keys],
            value[:, :, one.keys],
            attn_mask=one.mask,
            is_causal=one.mask is None,
            scale=scaling,
            enable_gqa=query.shape[1] != key.shape[1],
        )
    return result.transpose(1, 2), None


def _decode(
    query: Float[Tensor, "head token head_dim"],
    key: Float[Tensor, "kv_head key head_dim"],
    value: Float[Tensor, "kv_head key head_dim"],
    segments: Segments,
    scaling: float | None,
) -> Float[Tensor, "row head head_dim"]:
    # Heads that share keys stand where tokens of a prompt would, so the keys are not repeated for them.
    grouped = query[:, segments.rows].transpose(0, 1).unflatten(1, (len(key), -1))
    keys, values = (part[:, segments.keys].transpose(0, 1) for part in (key, value))
    answer = scaled_dot_product_attention(grouped, keys, values, attn_mask=segments.mask, scale=scaling)
    return answer.flatten(1, 2)


def _no_mask(*_: Any, **__: Any) -> None:
    return None


AttentionInterface.register(NAME, packed_attention)
AttentionMaskInterface.register(NAME, _no_mask)
