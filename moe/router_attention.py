"""Causal attention for routers, over one more place of the cache that base and twin use.

A token's own hidden state says little about an instruction that stands hundreds of tokens before it. A router
may therefore look back at all tokens so far. Its keys and values live in the ordinary transformers cache, in
the shape that the base's layers have there, so every kind of cache, beam search and `generate_batch` serve it
without knowing it.
"""

from collections.abc import Callable
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from transformers import Cache, PreTrainedConfig
from transformers.masking_utils import (
    create_causal_mask,
    create_chunked_causal_mask,
    create_sliding_window_causal_mask,
)
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.llama.modeling_llama import eager_attention_forward

from ..experts.errors import FinLoraError

MASKS: dict[str, Callable[..., Any]] = {
    "full_attention": create_causal_mask,
    "sliding_attention": create_sliding_window_causal_mask,
    "chunked_attention": create_chunked_causal_mask,
}
"""How a mask is made for each kind of cache place that a router can use."""


class RouterAttention(nn.Module):
    """Attention without parameters of its own; the router brings queries, keys and values."""

    is_causal = True
    num_key_value_groups = 1

    def __init__(self, config: PreTrainedConfig, layer_idx: int, context_width: int):
        """Use place `layer_idx` of a cache made from `config`, whose last layer it is.

        Raises:
            FinLoraError: If no layer of the base has attention that keeps keys and values, or if these have
                fewer features than the router wants.
        """
        super().__init__()
        self.config = config.get_text_config(decoder=True)
        self.layer_idx = layer_idx
        self.heads: int = getattr(self.config, "num_key_value_heads", None) or self.config.num_attention_heads
        self.head_dim: int = getattr(self.config, "head_dim", None) or (
            self.config.hidden_size // self.config.num_attention_heads
        )
        self.width = self.heads * self.head_dim
        self.kind = kind_of_place(self.config)
        if context_width > self.width:
            raise FinLoraError(
                f"The router's context_width is {context_width}, but this base keeps {self.width} features a "
                f"token in a place of its cache; set context_width to {self.width} or less."
            )

    def forward(
        self,
        query: Float[Tensor, "batch token feature"],
        key: Float[Tensor, "batch token feature"],
        value: Float[Tensor, "batch token feature"],
        *,
        attention_mask: Any = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        **kwargs: Any,
    ) -> Float[Tensor, "batch token feature"]:
        """Attend to all tokens so far, and keep the new ones in the cache.

        Features are split into heads of the base's size, the last ones filled with zeros.

        Args:
            query: One for each new token.
            key: One for each new token.
            value: One for each new token.
            attention_mask: 1 for tokens, 0 for padding, including cached tokens; or what the base takes.
            position_ids: Positions of the new tokens.
            past_key_values: A cache whose only place is this one, or None.
            **kwargs: What the base's attention layers are given, such as the cache of `generate_batch`.
        """
        mask: Any = attention_mask
        if isinstance(mask, dict):
            mask = mask[self.kind]
        else:
            mask = MASKS[self.kind](
                config=self.config,
                inputs_embeds=query,
                attention_mask=mask,
                past_key_values=past_key_values,
                position_ids=position_ids,
            )
        heads = [self._split(part) for part in (query, key, value)]
        if past_key_values is not None:
            heads[1:] = past_key_values.update(heads[1], heads[2], self.layer_idx)
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation or "eager", eager_attention_forward
        )
        output, _ = attend(self, *heads, mask, dropout=0.0, scaling=self.head_dim**-0.5, **kwargs)
        return output.reshape(*query.shape[:2], -1)[..., : value.shape[-1]]

    def _split(self, features: Tensor) -> Float[Tensor, "batch head token head_dim"]:
        padded = functional.pad(features, (0, self.width - features.shape[-1]))
        return padded.unflatten(-1, (self.heads, self.head_dim)).transpose(1, 2)


def kind_of_place(config: PreTrainedConfig) -> str:
    """The kind of cache place that a router's keys and values go to: full attention where the base has it.

    Raises:
        FinLoraError: If no layer of the base has attention that keeps keys and values.
    """
    kinds = kinds_of_layers(config)
    for kind in MASKS:
        if kind in kinds:
            return kind
    raise FinLoraError(
        f"A router cannot look back on a base whose layers are {', '.join(sorted(kinds))}; set its "
        "context_width to 0."
    )


def kinds_of_layers(config: PreTrainedConfig) -> set[str]:
    """The kinds of a base's layers; where they are not listed, by transformers' own rule for caches."""
    layer_types = getattr(config, "layer_types", None)
    if layer_types is not None:
        return set(layer_types)
    if getattr(config, "sliding_window", None) is not None:
        return {"sliding_attention"}
    chunked = getattr(config, "attention_chunk_size", None) is not None
    return {"chunked_attention" if chunked else "full_attention"}
