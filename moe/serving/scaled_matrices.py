"""Reads a registered expert's matrices without keeping a copy of the file in memory."""

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from ...experts.errors import FinLoraError
from ..bank import PEFT_PREFIX
from .registry_index import LayerShape


def read_scaled(name: str, file: Path, shapes: Mapping[str, LayerShape]) -> dict[str, tuple[Tensor, Tensor]]:
    """Return A (rank, d_in) and scaled B (d_out, rank) by layer, in float32, as `bank.read_matrices` does.

    Read, not mapped: safetensors 0.8 leaks some memory for each tensor that it maps (measured).

    Args:
        name: Of the expert, for messages.
        file: Its safetensors file.
        shapes: Of its layers.

    Raises:
        FinLoraError: If the file is not what the shapes say.
    """
    result = {}
    try:
        with safe_open(file, framework="pt", backend="pread") as tensors:
            for module, shape in shapes.items():
                down = tensors.get_tensor(f"{PEFT_PREFIX}{module}.lora_A.weight").float()
                up = tensors.get_tensor(f"{PEFT_PREFIX}{module}.lora_B.weight").float() * shape.scale
                if down.shape != (shape.rank, shape.d_in) or up.shape != (shape.d_out, shape.rank):
                    raise FinLoraError(f"The file of {name} changed since it was added; add it again.")
                result[module] = (down, up)
    except (SafetensorError, OSError) as error:
        raise FinLoraError(
            f"The file of {name} was damaged since it was added; add it again ({error})."
        ) from error
    return result
