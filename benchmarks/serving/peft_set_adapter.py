"""PEFT's `set_adapter` as a server, S-LoRA's baseline: the queue grouped by adapter, in static batches.

S-LoRA wraps the model anew for each group; here all adapters of the trace are loaded beforehand, untimed,
which only helps PEFT.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from peft import PeftModel

from ...experts.base_model import Base
from .static_batches import StaticBatches, StaticTicket


class SetAdapterBatches:
    """Batches of requests for one adapter."""

    def __init__(self, model: PeftModel, batch_size: int):
        """Run batches of up to `batch_size` requests (6 in S-LoRA's script, 50 in its table)."""
        self.model, self.batch_size = model, batch_size

    def choose(self, waiting: Sequence[StaticTicket]) -> list[StaticTicket]:
        """The oldest request, and others for its adapter."""
        return oldest_group(waiting)[: self.batch_size]

    def generate(self, batch: Sequence[StaticTicket], inputs: dict[str, Any]) -> None:
        """Activate the adapter, and generate."""
        self.model.set_adapter(str(batch[0].request.model), inference_mode=True)
        self.model.generate(**inputs)


def oldest_group(waiting: Sequence[StaticTicket]) -> list[StaticTicket]:
    """The requests for the adapter of the oldest one, in order of arrival."""
    adapter = waiting[0].request.model
    return [one for one in waiting if one.request.model == adapter]


def peft_set_adapter(base: Base, folders: Mapping[str, Path], batch_size: int) -> StaticBatches:
    """Start a server of these experts; the base belongs to it from now on."""
    model = load_adapters(base, folders)
    return StaticBatches(SetAdapterBatches(model, batch_size), padding_of(base))


def load_adapters(base: Base, folders: Mapping[str, Path]) -> PeftModel:
    """Return the base in PEFT with all adapters loaded, each under its name.

    Args:
        base: Is changed.
        folders: Adapter folder by name.
    """
    (first, folder), *others = folders.items()
    model = PeftModel.from_pretrained(base.model, folder, adapter_name=first)
    for name, folder in others:
        model.load_adapter(folder, adapter_name=name)
    return model.requires_grad_(False).eval()


def padding_of(base: Base) -> int:
    """The base's padding token."""
    return base.tokenizer(str(base.tokenizer.pad_token), add_special_tokens=False)["input_ids"][0]
