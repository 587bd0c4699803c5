"""Modes in which a token gets scalings that were computed for an earlier one.

Which token that is: `source_tokens`. What the tokens after a cache need of those before is kept on the cache.
"""

from collections.abc import Callable
from typing import Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import Cache

from ..experts import encoding
from .mode import Mode
from .scalings import Scalings

_ON_CACHE = "carried_scalings"
_CHOSEN = "chosen_scalings"


def source_tokens(
    mode: Mode,
    token_count: int,
    attention_mask: Any,
    prompt_lengths: Int[Tensor, " batch"] | None = None,
    labels: Int[Tensor, "batch token"] | None = None,
) -> Int[Tensor, "#batch token"] | None:
    """Return the column whose scalings each token gets in a pass without earlier tokens; None for its own.

    Args:
        mode: The mixture's.
        token_count: Columns of the pass.
        attention_mask: 1 for tokens, 0 for padding, if it says so; the first token of a row has no previous
            one and gets its own.
        prompt_lengths: Columns before the answer, padding on the left included.
        labels: Say where the answer begins, if `prompt_lengths` does not.
    """
    if mode.name == "previous":
        columns = torch.arange(-1, token_count - 1).clamp(min=0)[None]
        if isinstance(attention_mask, Tensor) and attention_mask.shape[1:] == (token_count,):
            first = attention_mask.int().argmax(dim=1, keepdim=True)
            return torch.maximum(columns.to(first.device), first)
        return columns
    if prompt_lengths is None and labels is not None:
        prompt_lengths = encoding.prompt_lengths(labels)
    if mode.name == "prompt" and prompt_lengths is not None:
        columns = torch.arange(token_count, device=prompt_lengths.device)[None]
        return torch.minimum(columns, (prompt_lengths[:, None] - 1).clamp(min=0))
    return None


def carried_by(cache: Cache | None) -> Float[Tensor, "batch 1 module expert"] | None:
    """Return what `carry` left on a cache; None if the cache is absent or empty."""
    if cache is None or not hasattr(cache, _ON_CACHE):
        return None
    # Static caches are emptied and used again. A compiled step is always one on a cache that is not empty.
    if not torch.compiler.is_compiling() and not int(cache.get_seq_length()):
        return None
    return cast(Any, cache).carried_scalings


def chosen_once(cache: Any, choose: Callable[[], Scalings]) -> Scalings:
    """Return what `choose` returns, which is called once for all that a cache carries."""
    if getattr(cache, _CHOSEN) is None:
        setattr(cache, _CHOSEN, choose())
    return getattr(cache, _CHOSEN)


def carry(
    mode: Mode,
    own: Float[Tensor, "#batch #token module expert"],
    carried: Float[Tensor, "batch 1 module expert"] | None,
    sources: Int[Tensor, "#batch token"] | None,
    cache: Cache | None,
) -> Float[Tensor, "#batch #token module expert"]:
    """Give each token the scalings of its source, and leave on the cache what later tokens will need.

    Args:
        mode: The mixture's.
        own: Scalings that the router computed for each token.
        carried: What was left on the cache by the tokens before.
        sources: Column whose scalings each token gets, if nothing is carried.
        cache: Keys and values of both, or None.
    """
    if not mode.carries_scalings:
        return own
    if cache is not None:
        setattr(cache, _ON_CACHE, own[:, -1:].detach())
        setattr(cache, _CHOSEN, None)
    if carried is not None:
        return torch.cat([carried, own[:, :-1]], dim=1)
    if sources is None:
        return own
    index = sources.to(own.device)[:, :, None, None].expand(own.shape[0], -1, *own.shape[2:])
    return own.gather(1, index)
