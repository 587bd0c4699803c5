"""What `generate` and `generate_batch` do for a mixture in each mode."""

from typing import Any, cast

from torch import Tensor
from transformers import GenerationMixin

from ..experts.errors import FinLoraError
from .decoding.both_passes import runs_as_one_batch
from .decoding.draft import Draft, DraftCounts
from .decoding.generated import Generated
from .decoding.previous import decode_with_previous
from .mode import Mode


class MixtureGenerationMixin(GenerationMixin):
    """transformers' generation, with loops of our own where both passes can run as one.

    Attributes:
        last_draft: How proposals fared in the last `generate` of mode draft, or None.
    """

    mode: Mode
    last_draft: DraftCounts | None

    def _sample(
        self,
        input_ids: Tensor,
        logits_processor: Any,
        stopping_criteria: Any,
        generation_config: Any,
        synced_gpus: bool = False,
        streamer: Any = None,
        **model_kwargs: Any,
    ) -> Any:
        """The loop under `generate`, for greedy decoding and sampling."""
        if not runs_as_one_batch(cast(Any, self), generation_config, model_kwargs) or synced_gpus:
            return cast(Any, super())._sample(
                input_ids,
                logits_processor,
                stopping_criteria,
                generation_config,
                synced_gpus,
                streamer,
                **model_kwargs,
            )
        generated = Generated(input_ids, generation_config, logits_processor, stopping_criteria, streamer)
        mask = model_kwargs.get("attention_mask")
        if self.mode.name == "previous":
            return decode_with_previous(cast(Any, self), input_ids, mask, generated)
        draft = Draft(cast(Any, self), generated)
        sequences = draft.decode(input_ids, mask)
        self.last_draft = draft.counts
        return sequences

    def _beam_search(self, *args: Any, **kwargs: Any) -> Any:
        if self.mode.name == "previous":
            raise FinLoraError(
                "A mixture in mode previous cannot search with beams, which would mix up whose scalings are "
                "carried on; set num_beams to 1."
            )
        return cast(Any, super())._beam_search(*args, **kwargs)

    def _assisted_decoding(self, *args: Any, **kwargs: Any) -> Any:
        if self.mode.carries_scalings:
            raise FinLoraError(
                f"A mixture in mode {self.mode.name} cannot take back tokens, as assisted decoding and "
                "prompt lookup do; leave them out."
            )
        return cast(Any, super())._assisted_decoding(*args, **kwargs)

    def init_continuous_batching(self, *args: Any, **kwargs: Any) -> Any:
        """Start what `generate_batch` runs on.

        Raises:
            FinLoraError: If the mode carries scalings from token to token, which a paged cache does not keep.
        """
        if self.mode.carries_scalings:
            raise FinLoraError(
                f"A mixture in mode {self.mode.name} cannot run in generate_batch; use generate, or the "
                "modes exact or trunk."
            )
        return super().init_continuous_batching(*args, **kwargs)
