"""Folders of the xlora package (EricLBuehler/xlora), in.

They hold `xlora_config.json`, `xlora_classifier.safetensors` and usually one PEFT folder for each expert.
"""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from ..experts.errors import FinLoraError
from .checkpoint import MixtureFiles, read_json, read_tensors
from .peft_xlora import resolve_experts, router_settings, router_weights

CONFIG_FILE = "xlora_config.json"
WEIGHTS_FILE = "xlora_classifier.safetensors"


def read_xlora_package(folder: Path | str, adapters: Mapping[str, Path | str] | None = None) -> MixtureFiles:
    """Read a folder that the xlora package's `save_pretrained` wrote.

    Args:
        folder: Holds the two files and, usually, a folder for each expert.
        adapters: Folders of the experts in the order of the router's outputs, instead of those in the folder.

    Raises:
        FinLoraError: If the folder is of another kind, damaged, or uses what a mixture cannot reproduce.
    """
    folder = Path(folder)
    config = read_json(folder / CONFIG_FILE)
    if config.get("use_mean_pool"):
        raise FinLoraError(
            f"The router of {folder} pools the whole sequence (use_mean_pool); a mixture routes token by "
            "token."
        )
    if not (folder / WEIGHTS_FILE).is_file() and (folder / "xlora_classifier.pt").is_file():
        raise FinLoraError(
            f"{folder} stores its router as xlora_classifier.pt; only safetensors are read, since loading "
            f"the other can run code: save it again as {WEIGHTS_FILE}."
        )
    settings = router_settings(folder, config)
    if settings["depth"] > 1 and "enable_relu_and_dropout" not in config:
        raise FinLoraError(
            f"{folder / CONFIG_FILE} does not say enable_relu_and_dropout, whose default differs between "
            "versions of xlora; add it."
        )
    linears = _linears(folder, read_tensors(folder / WEIGHTS_FILE))
    stored = config.get("adapters") or {}
    names = stored if isinstance(stored, dict) else {name: name for name in stored}
    return MixtureFiles(
        folder=folder,
        base_name=config.get("base_model_id") or None,
        experts=resolve_experts(folder, adapters or names),
        router_name="xlora",
        router_settings=settings
        | {
            "relu": bool(config.get("enable_relu_and_dropout", True)),
            "bias": all("bias" in linear for linear in linears),
        },
        router_weights=router_weights(linears),
    )


def _linears(folder: Path, tensors: Mapping[str, Tensor]) -> list[dict[str, Tensor]]:
    """Order `inner.0`, `inner.3`, … (or `inner.0`, `inner.1`, … without ReLU and dropout) and `last`."""
    inner: dict[int, dict[str, Tensor]] = {}
    last: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        match key.split("."):
            case ["inner", index, ("weight" | "bias") as kind] if index.isdigit():
                inner.setdefault(int(index), {})[kind] = tensor
            case ["last", ("weight" | "bias") as kind]:
                last[kind] = tensor
            case _:
                raise FinLoraError(
                    f"{folder / WEIGHTS_FILE} holds {key}, which is no part of an xlora router."
                )
    return [*(inner[index] for index in sorted(inner)), last]
