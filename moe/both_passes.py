"""Runs scaling passes and mixture passes of some sequences as one batch, so weights are read once for both.

The rows of scaling passes go through the twin with all scalings at zero, which is the base. This serves
decoding that knows the scalings of the token at hand before the pass begins; see `draft.py` and
`previous_decoding.py`.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import DynamicCache, GenerationConfig

from .row_cache import RowCache, Slots, causal_mask
from .scalings import Scalings

if TYPE_CHECKING:
    from .mixture import MixtureForCausalLM


@dataclass(frozen=True)
class Tokens:
    """New tokens of one row and the slot of the first; there may be none."""

    ids: Sequence[int]
    start: int


@dataclass(frozen=True)
class Passed:
    """What the passes found, for the tokens that were given; later places only fill the batch up.

    Attributes:
        mixture_logits: Of the mixture passes.
        scalings: What the scaling passes decided for their tokens; None if there was none.
    """

    mixture_logits: Float[Tensor, "sequence token vocabulary"]
    scalings: Float[Tensor, "sequence token module expert"] | None


class BothPasses:
    """Key/value cache of both passes of some sequences, and the passes on it."""

    def __init__(self, mixture: "MixtureForCausalLM", sequences: int, slots: int):
        """Begin with an empty cache.

        Args:
            mixture: In a mode that keeps the keys and values of the scaling pass.
            sequences: Number of sequences.
            slots: Most tokens of one sequence, padding included.
        """
        self.mixture = mixture
        self.sequences = sequences
        depth = mixture.base.config.get_text_config(decoder=True).num_hidden_layers
        looks_back = mixture.router_attention is not None
        self.cache = RowCache(depth=depth, sequences=sequences, slots=slots, router_place=looks_back)
        self.first = torch.zeros(sequences, dtype=torch.long, device=mixture.device)

    def read(
        self, input_ids: Int[Tensor, "sequence token"], attention_mask: Int[Tensor, "sequence token"] | None
    ) -> Float[Tensor, "sequence vocabulary"]:
        """Take in the prompts, padded at their left, and return the logits after them."""
        width = input_ids.shape[1]
        if attention_mask is not None:
            self.first = attention_mask.int().argmax(dim=1)
        positions = (torch.arange(width, device=input_ids.device) - self.first[:, None]).clamp(min=0)
        self.cache.now = Slots(torch.arange(width, device=input_ids.device)[None], width)
        output = self.mixture(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=positions,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return output.logits[:, -1]

    def last_scalings(self) -> Sequence[Float[Tensor, "1 module expert"]]:
        """Scalings of each prompt's last token."""
        scalings = self.mixture.last_scalings
        assert scalings is not None
        return list(scalings[:, -1:])

    def run(
        self,
        mixture_tokens: Sequence[Tokens],
        scalings: Sequence[Float[Tensor, "_ module expert"]],
        base_tokens: Sequence[Tokens],
    ) -> Passed:
        """Run one batch.

        Args:
            mixture_tokens: Tokens of each sequence for the mixture pass; at least one has some.
            scalings: Theirs.
            base_tokens: Tokens of each sequence for the scaling pass.
        """
        has_base = any(one.ids for one in base_tokens)
        rows = [*mixture_tokens, *(base_tokens if has_base else ())]
        ids, slots = self._lay_out(rows)
        first = self.first.repeat(1 + has_base)
        length = max(one.start + len(one.ids) for one in rows)
        mask = self._for_attention(causal_mask(slots, first, length))
        positions = (slots - first[:, None]).clamp(min=0)
        self.cache.now = Slots(slots, length)
        with self.mixture.context.using(self._of_rows(scalings, ids)), self._hidden_states() as hidden:
            logits = self.mixture.twin(
                input_ids=ids,
                attention_mask=mask,
                position_ids=positions,
                past_key_values=self.cache,
                use_cache=True,
            ).logits
        count = self.sequences
        decided = None
        if has_base:
            self.cache.now = Slots(slots[count:], length)
            decided = self._decide(hidden[0][count:], mask[count:], positions[count:])
        return Passed(logits[:count], decided)

    def _lay_out(self, rows: Sequence[Tokens]) -> tuple[Int[Tensor, "row token"], Int[Tensor, "row token"]]:
        width = max(len(one.ids) for one in rows)
        spare = self.cache.spare_slot
        ids = [[*one.ids, *[0] * (width - len(one.ids))] for one in rows]
        slots = [
            [*range(one.start, one.start + len(one.ids)), *[spare] * (width - len(one.ids))] for one in rows
        ]
        device = self.mixture.device
        return torch.tensor(ids, device=device), torch.tensor(slots, device=device)

    def _of_rows(self, scalings: Sequence[Tensor], ids: Tensor) -> Scalings:
        weights = scalings[0].new_zeros(*ids.shape, *scalings[0].shape[1:])
        for row, one in enumerate(scalings):
            weights[row, : one.shape[0]] = one
        return Scalings.choose(weights, self.mixture.router.most_chosen, self.mixture.bank.stacks.layout)

    @contextmanager
    def _hidden_states(self) -> Iterator[list[Tensor]]:
        """Collect the final hidden states of a pass, from which the twin goes on to its logits."""
        states: list[Tensor] = []
        hook = self.mixture.twin.base_model.register_forward_hook(
            lambda _module, _inputs, output: states.append(output.last_hidden_state)
        )
        try:
            yield states
        finally:
            hook.remove()

    def _decide(self, hidden: Tensor, mask: Tensor, positions: Tensor) -> Tensor:
        attention = self.mixture.router_attention
        attend = None
        if attention is not None:
            attend = partial(
                attention,
                attention_mask=mask,
                position_ids=positions,
                past_key_values=self.cache,
            )
        scalings = self.mixture.router(hidden, attend)
        return scalings.expand(*hidden.shape[:2], -1, -1)

    def _for_attention(self, mask: Tensor) -> Tensor:
        """Scaled dot-product attention takes booleans; eager attention adds what it is given."""
        if self.mixture.config._attn_implementation == "sdpa":
            return mask
        dtype = self.mixture.base.dtype
        return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(
            ~mask, torch.finfo(dtype).min
        )


def runs_as_one_batch(
    mixture: "MixtureForCausalLM", generation_config: GenerationConfig, inputs: dict[str, Any]
) -> bool:
    """Whether a call of `generate` can run both passes as one batch; if not, they run one after the other.

    Args:
        mixture: Of any mode.
        generation_config: Of the call.
        inputs: Further arguments of the model.
    """
    cache = inputs.get("past_key_values")
    config = mixture.base.config.get_text_config(decoder=True)
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    windowed = getattr(config, "sliding_window", None) if not getattr(config, "layer_types", None) else None
    return (
        mixture.mode.name in ("draft", "previous")
        and mixture.config._attn_implementation in ("sdpa", "eager")
        and kinds == {"full_attention"}
        and windowed is None
        and type(cache) is DynamicCache
        and cache.get_seq_length() == 0
        and inputs.get("inputs_embeds") is None
        and not generation_config.return_dict_in_generate
    )
