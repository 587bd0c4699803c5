"""A mixture as the serving model sees it: a router, and which resident experts its outputs are for."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedConfig

from ...experts.errors import FinLoraError
from ..layer_gates import LayerRouter
from ..mode import Mode
from ..pass_inputs import normalize
from ..router_attention import RouterAttention
from ..routing import Router
from .packed_batch import PackedBatch


@dataclass(frozen=True, eq=False)
class ServedMixture:
    """A mixture of experts that are loaded by the pool.

    Raises:
        FinLoraError: If its mode or router cannot run in a packed batch.
    """

    name: str
    experts: Sequence[Any]
    """Keys of its experts, in the order of the router's outputs."""
    module_names: Sequence[str]
    """Adapted layers, in the order of the router's outputs."""
    router: Router
    mode: Mode

    def __post_init__(self) -> None:
        if isinstance(self.router, LayerRouter):
            raise FinLoraError(
                f"The mixture {self.name} decides inside the layers ({self.router.name}), which is not "
                "served in batches; serve one with an X-LoRA or a constant router, or answer with "
                "`finlora generate`."
            )
        if self.mode.block is not None and not self.router.needs_hidden_states:
            raise FinLoraError(
                f"The router of {self.name} ({self.router.name}) reads no hidden states, so its mode can "
                f"only be exact, not {self.mode.name}; save the mixture so."
            )
        refuse_carried_scalings(self.name, self.mode)

    @property
    def needs_scaling_pass(self) -> bool:
        """Whether the base has to run first, with keys and values of its own."""
        return self.router.needs_hidden_states and self.mode.keeps_scaling_pass

    def scalings(
        self,
        hidden: Float[Tensor, "1 token d_model"] | None,
        batch: PackedBatch,
        attention: RouterAttention | None,
    ) -> Float[Tensor, "token module expert"]:
        """Return the scalings of the new tokens of its requests.

        Args:
            hidden: Of these tokens, after the scaling pass or before the mode's block; None if not needed.
            batch: Of its requests only.
            attention: With what a router looks back, or None.
        """
        count = sum(batch.query_lengths)
        if hidden is None:
            hidden = torch.zeros(1, count, 0, device=batch.device)
        elif self.mode.block is not None:
            hidden = normalize(hidden)
        attend = None if attention is None else _attend(attention, batch)
        return self.router(hidden, attend)[0].expand(count, -1, -1)


def refuse_carried_scalings(name: str, mode: Mode) -> None:
    """Check that a mixture's tokens do not need scalings of earlier ones.

    Raises:
        FinLoraError: If they do.
    """
    if mode.carries_scalings:
        raise FinLoraError(
            f"The mixture {name} is in mode {mode.name}, which carries scalings from token to token and is "
            "not served in batches; save it in mode exact or trunk."
        )


def router_attention(config: PreTrainedConfig, mixture: ServedMixture, place: int) -> RouterAttention | None:
    """What a mixture's router looks back with, in the cache's last place; None if it does not look back."""
    width = mixture.router.context_width
    return RouterAttention(config, place, width) if width else None


def _attend(attention: RouterAttention, batch: PackedBatch) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    inputs = batch.model_inputs()
    kept = {name: value for name, value in inputs.items() if name not in ("input_ids", "use_cache")}

    def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return attention(query, key, value, **kept)

    return attend
