"""Read a trained expert from its folder: a PEFT LoRA adapter, plus `expert.json` if FinLoRA trained it.

Only reads and checks; what is done with the tensors is the business of the caller.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peft import LoraConfig
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from .atomic_write import write_json
from .base_model import Base, linear_layer_names
from .errors import FinLoraError

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
METADATA_FILE = "expert.json"


@dataclass(frozen=True)
class ExpertFiles:
    """What the folder of one expert holds."""

    folder: Path
    """Where it was read from."""
    config: LoraConfig
    """Rank, scale, adapted layers and variant (rsLoRA, DoRA)."""
    tensors: dict[str, Tensor]
    """Weights on the CPU under PEFT's names, `base_model.model.….lora_A.weight` of shape (rank, d_in) and so
    on."""
    metadata: dict[str, Any] | None
    """Content of `expert.json`; None for an adapter that FinLoRA did not train."""

    @property
    def is_dora(self) -> bool:
        """Whether the expert rescales the rows of the adapted weights (DoRA, arXiv:2402.09353)."""
        return bool(self.config.use_dora)

    @property
    def task(self) -> str | None:
        """Name of the task it was trained on, if known."""
        return (self.metadata or {}).get("task")

    def check_fits(self, base: Base) -> None:
        """Check that the expert was trained on this base.

        Raises:
            FinLoraError: If an adapted layer is missing in the base or has other dimensions, or if the expert
                states other weights than the base has.
        """
        self._check_layers(base)
        metadata = self.metadata or {}
        trained_on, revision = metadata.get("base"), metadata.get("base_revision")
        if revision is not None and revision != base.revision:
            raise FinLoraError(
                f"The expert {self.folder} was trained on {trained_on} ({revision}), not on {base.name} "
                f"({base.revision}); load that base or train the expert again."
            )

    def _check_layers(self, base: Base) -> None:
        modules = dict(base.model.named_modules())
        for key, tensor in self.tensors.items():
            name, _, matrix = key.removeprefix("base_model.model.").rpartition(".lora_")
            if not name:
                continue
            if name not in modules:
                raise FinLoraError(
                    f"The expert {self.folder} adapts the layer {name}, which the base {base.name} does not "
                    "have; "
                    f"its layers are named {', '.join(linear_layer_names(base.model))}."
                )
            width = {"A": "in_features", "B": "out_features"}.get(matrix[0])
            size = tensor.shape[1 if matrix[0] == "A" else 0]
            expected = getattr(modules[name], width, size) if width else size
            if size != expected:
                raise FinLoraError(
                    f"The expert {self.folder} was trained on another base: its layer {name} has {width} "
                    f"{size}, "
                    f"that of {base.name} has {expected}."
                )


def read_expert(folder: Path | str) -> ExpertFiles:
    """Read and check the folder of one expert.

    Args:
        folder: A PEFT adapter folder.

    Raises:
        FinLoraError: If it is no folder, not a LoRA adapter, not stored as safetensors, or damaged.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FinLoraError(
            f"No expert at {folder}: it is not a folder; give the folder `train-expert` wrote."
        )
    return ExpertFiles(folder, _read_config(folder), _read_tensors(folder), _read_metadata(folder))


def name_experts(folders: Sequence[Path]) -> dict[str, Path]:
    """Name experts by their tasks, or by their folders where the task is not known.

    Raises:
        FinLoraError: If one cannot be read, or two have the same name.
    """
    named: dict[str, Path] = {}
    for folder in folders:
        name = read_expert(folder).task or folder.name
        if name in named:
            raise FinLoraError(
                f"{named[name]} and {folder} are both experts named {name}; give one expert a task."
            )
        named[name] = folder
    return named


def sort_targets(folder: Path) -> None:
    """Give equal adapters equal files: PEFT keeps the targets as a set, whose order changes by process.

    Args:
        folder: A PEFT adapter folder whose config lists its targets.
    """
    content = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    content["target_modules"] = sorted(content["target_modules"])
    write_json(folder / CONFIG_FILE, content)


def _read_config(folder: Path) -> LoraConfig:
    content = _read_json(folder, CONFIG_FILE)
    if content is None:
        raise FinLoraError(f"{folder} has no {CONFIG_FILE}, so it is not a PEFT adapter.")
    if content.get("peft_type") != "LORA":
        raise FinLoraError(
            f"{folder} holds a {content.get('peft_type')} adapter; only LORA (with its variants rsLoRA and "
            "DoRA) can be "
            "an expert."
        )
    try:
        return LoraConfig.from_pretrained(str(folder))  # pyright: ignore[reportReturnType]
    except (TypeError, ValueError) as error:
        raise FinLoraError(f"{folder / CONFIG_FILE} cannot be read by PEFT: {error}") from error


def _read_tensors(folder: Path) -> dict[str, Tensor]:
    file = folder / WEIGHTS_FILE
    if not file.is_file():
        pickled = [path.name for path in (*folder.glob("*.bin"), *folder.glob("*.pt"))]
        if pickled:
            raise FinLoraError(
                f"{folder} stores its weights as {pickled[0]}; only safetensors are read, since loading the "
                "other can "
                f"run code: save it again with PEFT as {WEIGHTS_FILE}."
            )
        raise FinLoraError(f"{folder} has no {WEIGHTS_FILE}.")
    try:
        # Read, not mapped: safetensors 0.8 never frees a few bytes for every tensor that it maps.
        tensors = load_file(file, backend="pread")
    except (SafetensorError, OSError) as error:
        raise FinLoraError(f"{file} is truncated or no safetensors file; copy it again ({error}).") from error
    if not any(".lora_A." in key for key in tensors):
        raise FinLoraError(f"{file} holds no LoRA weights.")
    return tensors


def _read_metadata(folder: Path) -> dict[str, Any] | None:
    return _read_json(folder, METADATA_FILE)


def _read_json(folder: Path, name: str) -> dict[str, Any] | None:
    file = folder / name
    if not file.is_file():
        return None
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise FinLoraError(f"{file} is not valid JSON: {error}.") from error
    if not isinstance(content, dict):
        raise FinLoraError(f"{file} must hold a JSON object.")
    return content
