"""PEFT's mixed batches as a server: each row of a static batch names its adapter (`adapter_names`).

PEFT then loops over the adapters of the batch in every layer.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from peft import PeftModel

from ...experts.base_model import Base
from ...moe.serving.requests import BASE_MODEL
from .peft_set_adapter import load_adapters, padding_of
from .static_batches import StaticBatches, StaticTicket

NO_ADAPTER = "__base__"
"""PEFT's name for rows without an adapter."""


class MixedBatches:
    """Batches of requests for any adapters."""

    def __init__(self, model: PeftModel, batch_size: int):
        """Run batches of up to `batch_size` requests."""
        self.model, self.batch_size = model, batch_size

    def choose(self, waiting: Sequence[StaticTicket]) -> list[StaticTicket]:
        """The oldest requests."""
        return list(waiting[: self.batch_size])

    def generate(self, batch: Sequence[StaticTicket], inputs: dict[str, Any]) -> None:
        """Name each row's adapter, and generate."""
        names = [str(one.request.model) for one in batch]
        self.model.generate(
            **inputs, adapter_names=[NO_ADAPTER if name == BASE_MODEL else name for name in names]
        )


def peft_mixed(base: Base, folders: Mapping[str, Path], batch_size: int) -> StaticBatches:
    """Start a server of these experts; the base belongs to it from now on."""
    model = load_adapters(base, folders)
    return StaticBatches(MixedBatches(model, batch_size), padding_of(base))
