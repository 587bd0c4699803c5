"""Arguments of the passes of a mixture, made from those of its forward."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import Cache

from ..experts.errors import FinLoraError

ONLY_FOR_THE_MIXTURE_PASS = ("output_hidden_states", "output_attentions", "num_items_in_batch", "return_dict")


def only_tokens(input_ids: Tensor | None, inputs_embeds: Tensor | None) -> Tensor:
    """Return what the tokens are given as.

    Raises:
        FinLoraError: If there are none.
    """
    tokens = input_ids if input_ids is not None else inputs_embeds
    if tokens is None:
        raise FinLoraError("A mixture needs input_ids or inputs_embeds; neither was given.")
    return tokens


def normalize(hidden: Float[Tensor, "batch token d_model"]) -> Float[Tensor, "batch token d_model"]:
    """Bring states from between two blocks to one scale, which a final hidden state has by the last norm."""
    return nn.functional.rms_norm(hidden, hidden.shape[-1:])


def without_cache(inputs: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a first pass over a prompt, for a pass whose keys and values nobody needs later."""
    tokens = inputs["input_ids"] if inputs["input_ids"] is not None else inputs["inputs_embeds"]
    mask = inputs["attention_mask"]
    if isinstance(mask, dict):
        mask = {kind: _cut(one, tokens.shape[1]) for kind, one in mask.items()}
    return inputs | {"attention_mask": _cut(mask, tokens.shape[1]), "use_cache": False}


def _cut(mask: Any, tokens: int) -> Any:
    """Masks made for a static cache are as wide as the cache."""
    return mask[..., :tokens] if isinstance(mask, Tensor) and mask.ndim == 4 else mask


def count_on(tokens: Tensor, cache: Cache | None) -> Int[Tensor, "1 token"]:
    """Both passes need the same positions, but the cache has grown when the second one starts."""
    seen = cache.get_seq_length() if cache is not None else 0
    return (torch.arange(tokens.shape[1], device=tokens.device) + seen).unsqueeze(0)
