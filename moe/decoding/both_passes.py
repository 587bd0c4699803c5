"""Runs scaling pass and mixture pass of a sequence as one pass, so that weights are read once for both.

The tokens of the scaling pass go through the twin with all scalings at zero, which is the base. This serves
decoding that knows the scalings of the token at hand before the pass begins; see `draft.py` and
`previous.py`.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import DynamicCache, GenerationConfig

from ..router_attention import kinds_of_layers
from ..scalings import Scalings
from .model import DecodableMixture
from .pair_cache import PairCache, Step


@dataclass(frozen=True)
class Tokens:
    """New tokens of one pass of a sequence and the slot of the first; there may be none."""

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
    scalings: Float[Tensor, "sequence base_token module expert"] | None


class BothPasses:
    """Key/value cache of both passes of some sequences, and the passes on it."""

    def __init__(self, mixture: DecodableMixture, sequences: int, slots: int):
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
        self.cache = PairCache(depth=depth, sequences=sequences, slots=slots, router_place=looks_back)
        self.first = torch.zeros(sequences, dtype=torch.long, device=mixture.device)

    def read(
        self, input_ids: Int[Tensor, "sequence token"], attention_mask: Int[Tensor, "sequence token"] | None
    ) -> Float[Tensor, "sequence vocabulary"]:
        """Take in the prompts, padded at their left, and return the logits after them."""
        width = input_ids.shape[1]
        if attention_mask is not None:
            self.first = attention_mask.int().argmax(dim=1)
        positions = (torch.arange(width, device=input_ids.device) - self.first[:, None]).clamp(min=0)
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
        """Run one pass.

        Args:
            mixture_tokens: Tokens of each sequence for the mixture pass; at least one has some.
            scalings: Theirs.
            base_tokens: Tokens of each sequence for the scaling pass.
        """
        base_ids, base_slots = self._lay_out(base_tokens)
        mixture_ids, mixture_slots = self._lay_out(mixture_tokens)
        length = max(one.start + len(one.ids) for one in (*mixture_tokens, *base_tokens) if one.ids)
        step = Step(base_slots, mixture_slots, length)
        positions = (step.slots - self.first[:, None]).clamp(min=0)
        self.cache.begin(step)
        count = base_ids.shape[1]
        mixed = self._of_tokens(scalings, count, mixture_ids.shape[1])
        with self.mixture.context.using(mixed), self._hidden_states() as hidden:
            logits = self.mixture.twin(
                input_ids=torch.cat([base_ids, mixture_ids], dim=1),
                attention_mask=self._for_attention(step.mask(self.first)),
                position_ids=positions,
                past_key_values=self.cache,
                use_cache=True,
                logits_to_keep=mixture_ids.shape[1],
            ).logits
        if not count:
            return Passed(logits, None)
        return Passed(logits, self._decide(hidden[0][:, :count], step, positions[:, :count]))

    def _lay_out(
        self, rows: Sequence[Tokens]
    ) -> tuple[Int[Tensor, "sequence token"], Int[Tensor, "sequence token"]]:
        width = max(len(one.ids) for one in rows)
        spare = self.cache.spare_slot
        ids = [[*one.ids, *[0] * (width - len(one.ids))] for one in rows]
        slots = [
            [*range(one.start, one.start + len(one.ids)), *[spare] * (width - len(one.ids))] for one in rows
        ]
        options = {"dtype": torch.long, "device": self.mixture.device}
        return torch.tensor(ids, **options), torch.tensor(slots, **options)

    def _of_tokens(self, scalings: Sequence[Tensor], base_count: int, mixture_count: int) -> Scalings:
        shape = (len(scalings), base_count + mixture_count, *scalings[0].shape[1:])
        weights = scalings[0].new_zeros(shape)
        for row, one in enumerate(scalings):
            weights[row, base_count : base_count + len(one)] = one
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

    def _decide(self, hidden: Tensor, step: Step, positions: Tensor) -> Tensor:
        attention = self.mixture.router_attention
        attend = None
        if attention is not None:
            attend = partial(
                attention,
                attention_mask=self._for_attention(step.base_mask(self.first)),
                position_ids=positions,
                past_key_values=self.cache,
            )
        scalings = self.mixture.router(hidden, attend)
        return scalings.expand(*hidden.shape[:2], -1, -1)

    def _for_attention(self, mask: Tensor) -> Tensor:
        """Scaled dot-product attention takes booleans; eager attention adds what it is given."""
        if self.mixture.base.config._attn_implementation == "sdpa":
            return mask
        dtype = self.mixture.base.dtype
        return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(
            ~mask, torch.finfo(dtype).min
        )


def runs_as_one_batch(
    mixture: DecodableMixture, generation_config: GenerationConfig, inputs: dict[str, Any]
) -> bool:
    """Whether a call of `generate` can run both passes as one batch; if not, they run one after the other.

    Args:
        mixture: Of any mode.
        generation_config: Of the call.
        inputs: Further arguments of the model.
    """
    cache = inputs.get("past_key_values")
    config = mixture.base.config.get_text_config(decoder=True)
    return (
        mixture.mode.name in ("draft", "previous")
        and mixture.base.config._attn_implementation in ("sdpa", "eager")
        and kinds_of_layers(config) == {"full_attention"}
        and type(cache) is DynamicCache
        and cache.get_seq_length() == 0
        and inputs.get("inputs_embeds") is None
        and not generation_config.return_dict_in_generate
    )
