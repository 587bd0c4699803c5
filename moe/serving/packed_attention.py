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

ROWS_OF_GROUP = 16
"""Requests whose single new tokens share one product."""


@dataclass(frozen=True)
class Prompt:
    """A request that brings several tokens at once, or its first."""

    queries: slice
    past: Int[Tensor, " key"] | None
    """Rows of the cache with all its keys; None for a prompt from its first token on."""
    mask: Bool[Tensor, "query key"] | None
    """What each new token sees; None for a prompt from its first token on, which is simply causal."""


@dataclass(frozen=True)
class Rows:
    """Requests with about as many keys each, which bring one new token each."""

    queries: Int[Tensor, " row"]
    keys: Int[Tensor, "row key"]
    """Rows of the cache, filled up with the request's own last one."""
    mask: Bool[Tensor, "row 1 1 key"]
    """Which of those count."""


class Segments:
    """Where each request's new tokens stand in the batch, and all its keys in the cache.

    Attributes:
        rows: Requests that decode, in groups of similar length.
        prompts: All others.
    """

    def __init__(
        self, query_lengths: Sequence[int], key_lengths: Sequence[int], read_index: Int[Tensor, " key"]
    ):
        """Take how many new tokens and how many keys, the new ones included, each request has.

        Args:
            query_lengths: One for each request.
            key_lengths: One for each request.
            read_index: Cache rows of all keys, request by request; empty if no request has a past.
        """
        self.prompts: list[Prompt] = []
        decoding: list[tuple[int, int, int]] = []
        query_start = key_start = 0
        for queries, keys in zip(query_lengths, key_lengths, strict=True):
            if queries == 1 and keys > 1:
                decoding.append((keys, key_start, query_start))
            else:
                past = read_index[key_start : key_start + keys] if keys > queries else None
                self.prompts.append(_prompt(slice(query_start, query_start + queries), past))
            query_start, key_start = query_start + queries, key_start + keys
        # A group is as wide as its longest request; similar lengths together waste little.
        decoding.sort()
        groups = (decoding[i : i + ROWS_OF_GROUP] for i in range(0, len(decoding), ROWS_OF_GROUP))
        self.rows = [_rows(group, read_index) for group in groups]


def _rows(group: list[tuple[int, int, int]], read_index: Int[Tensor, " key"]) -> Rows:
    """Lay out requests, each given as its number of keys, its first place in `read_index`, and its query."""
    lengths, starts, queries = torch.tensor(group, device=read_index.device).T
    columns = torch.arange(int(group[-1][0]), device=read_index.device)[None]
    # Beyond its end a row reads its own last key again, masked, and never another request's.
    places = starts[:, None] + columns.minimum(lengths[:, None] - 1)
    return Rows(queries, read_index[places], (columns < lengths[:, None])[:, None, None])


def _prompt(queries: slice, past: Int[Tensor, " key"] | None) -> Prompt:
    if past is None:
        return Prompt(queries, None, None)
    count, keys = queries.stop - queries.start, len(past)
    mask = torch.ones(count, keys, dtype=torch.bool, device=past.device).tril(keys - count)
    return Prompt(queries, past, mask)


def packed_attention(
    module: nn.Module,
    query: Float[Tensor, "1 head token head_dim"],
    key: Float[Tensor, "1 kv_head token head_dim"],
    value: Float[Tensor, "1 kv_head token head_dim"],
    attention_mask: Any,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Float[Tensor, "1 token head head_dim"], None]:
    """Store the new keys and values in the shared cache, and attend to each request's own.

    Args:
        module: The attention layer, which knows its place in the cache.
        query: Of all requests' new tokens, one request after the other.
        key: As `query`.
        value: As `query`.
        attention_mask: Not used; `segments` says what belongs together.
        scaling: Of the scores; by default 1 / sqrt(head_dim).
        **kwargs: `cache`, a `SharedCache`; `segments`; `write_index`, where new keys go.
    """
    segments: Segments = kwargs["segments"]
    keys, values = kwargs["cache"].store(key[0], value[0], module.layer_idx, kwargs["write_index"])
    result = torch.empty_like(query)
    for rows in segments.rows:
        result[0, :, rows.queries] = _decode(query[0], keys, values, rows, scaling).transpose(0, 1)
    for one in segments.prompts:
        if one.past is None:
            seen = key[:, :, one.queries], value[:, :, one.queries]
        else:
            seen = (part.index_select(0, one.past).transpose(0, 1)[None] for part in (keys, values))
        result[:, :, one.queries] = scaled_dot_product_attention(
            query[:, :, one.queries],
            *seen,
            attn_mask=one.mask,
            is_causal=one.mask is None,
            scale=scaling,
            enable_gqa=query.shape[1] != key.shape[1],
        )
    return result.transpose(1, 2), None


def _decode(
    query: Float[Tensor, "head token head_dim"],
    keys: Float[Tensor, "key_row kv_head head_dim"],
    values: Float[Tensor, "value_row kv_head head_dim"],
    rows: Rows,
    scaling: float | None,
) -> Float[Tensor, "row head head_dim"]:
    # Heads that share keys stand where tokens of a prompt would, so the keys are not repeated for them.
    grouped = query[:, rows.queries].transpose(0, 1).unflatten(1, (keys.shape[1], -1))
    flat, shape = rows.keys.flatten(), rows.keys.shape
    read = (part.index_select(0, flat).unflatten(0, shape).transpose(1, 2) for part in (keys, values))
    answer = scaled_dot_product_attention(grouped, *read, attn_mask=rows.mask, scale=scaling)
    return answer.flatten(1, 2)


def _no_mask(*_: Any, **__: Any) -> None:
    return None


AttentionInterface.register(NAME, packed_attention)
AttentionMaskInterface.register(NAME, _no_mask)
