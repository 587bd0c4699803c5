"""The result of a federated run as an ordinary expert folder."""

import os
import shutil
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from ..adapter import CONFIG_FILE, METADATA_FILE, WEIGHTS_FILE, sort_targets
from ..atomic_write import write_json
from .adapters import FederatedAdapter


def write_expert(adapter: FederatedAdapter, folder: Path, metadata: dict[str, Any]) -> Path:
    """Write the adapter as PEFT and `read_expert` read it; `expert.json` comes last and marks it as complete.

    Args:
        adapter: Holds the values to write.
        folder: Folder to write, made if missing; what a killed call left there is replaced.
        metadata: Content of `expert.json`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = folder / ".unfinished"
    adapter.config.base_model_name_or_path = adapter.base.name
    adapter.config.inference_mode = True
    adapter.config.save_pretrained(str(unfinished))
    sort_targets(unfinished)
    tensors = {}
    for layer, (down, up) in adapter.lora_factors().items():
        tensors[f"base_model.model.{layer}.lora_A.weight"] = down.contiguous()
        tensors[f"base_model.model.{layer}.lora_B.weight"] = up.contiguous()
    save_file(tensors, unfinished / WEIGHTS_FILE, metadata={"format": "pt"})
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        os.replace(unfinished / name, folder / name)
    write_json(folder / METADATA_FILE, metadata)
    shutil.rmtree(unfinished)
    return folder
