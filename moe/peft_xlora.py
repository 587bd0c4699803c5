"""PEFT's X-LoRA folders, in and out: `adapter_config.json` of type XLORA and the router's weights.

PEFT stores the router only; experts are named by path. On the way out they are copied along, named "0" to
"n-1", because PEFT silently ignores any other name.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from peft import XLoraConfig
from torch import Tensor

from ..experts.adapter import CONFIG_FILE, METADATA_FILE, WEIGHTS_FILE
from ..experts.errors import FinLoraError
from .checkpoint import MixtureFiles, SavableMixture, read_json, read_tensors, save_tensors
from .mode import EXACT

LAYERS = "internal_xlora_classifier.layers."
XLORA_DEFAULTS: dict[str, Any] = {
    "enable_softmax": True,
    "enable_softmax_topk": False,
    "layerwise_scalings": False,
    "xlora_depth": 1,
    "xlora_size": 2048,
    "xlora_dropout_p": 0.2,
    "softmax_temperature": 1.0,
    "top_k_lora": None,
    "global_scaling_weight": 1.0,
    "scaling_pass_value": 0,
}
"""Fields that PEFT and the xlora package share, with the defaults of both."""


def read_peft_xlora(folder: Path | str, adapters: Mapping[str, Path | str] | None = None) -> MixtureFiles:
    """Read a folder that PEFT's `save_pretrained` wrote for an X-LoRA model.

    Args:
        folder: Holds `adapter_config.json` and `adapter_model.safetensors`.
        adapters: Folders of the experts in the order of the router's outputs, instead of the paths that are
            stored.

    Raises:
        FinLoraError: If the folder is of another kind, damaged, or uses what a mixture cannot reproduce.
    """
    folder = Path(folder)
    config = read_json(folder / CONFIG_FILE)
    if config.get("peft_type") != "XLORA":
        raise FinLoraError(
            f"{folder} holds a {config.get('peft_type')} adapter of PEFT; X-LoRA has peft_type XLORA."
        )
    if config.get("use_trainable_adapters") and adapters is None:
        raise FinLoraError(
            f"The experts of {folder} were trained together with its router (use_trainable_adapters), and "
            "PEFT does not save them there; give their folders (adapters)."
        )
    settings = router_settings(folder, config)
    return MixtureFiles(
        folder=folder,
        base_name=config.get("base_model_name_or_path") or None,
        experts=resolve_experts(folder, adapters or _in_router_order(config.get("adapters") or {})),
        router_name="xlora",
        router_settings=settings,
        router_weights=router_weights(_read_linears(folder, settings)),
    )


def _read_linears(folder: Path, settings: Mapping[str, Any]) -> list[dict[str, Tensor]]:
    """Collect the router's linear layers, also those that PEFT puts into the wrong file.

    PEFT 0.21 takes the number of a router layer for the name of an expert where they coincide. It then
    leaves the layer out of the router's file and writes it, without its number, to the folder of that expert.
    """
    tensors = read_tensors(folder / WEIGHTS_FILE)
    linears = []
    for index in _layer_numbers(settings):
        linear = _with_prefix(tensors, f"{LAYERS}{index}.")
        misplaced = folder / str(index) / WEIGHTS_FILE
        if not linear and misplaced.is_file():
            linear = _with_prefix(read_tensors(misplaced), LAYERS)
        if not linear:
            raise FinLoraError(
                f"{folder / WEIGHTS_FILE} lacks layer {index} of the router, which some versions of PEFT "
                "lose when saving; save it again, with the folders of the experts that PEFT writes beside it."
            )
        linears.append(linear)
    return linears


def _layer_numbers(settings: Mapping[str, Any]) -> range:
    """PEFT keeps ReLU, and dropout if there is any, as layers of their own between the linear ones."""
    stride = 3 if settings["dropout"] > 0 else 2
    return range(0, settings["depth"] * stride, stride)


def _with_prefix(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    named = {key.partition(prefix)[2]: tensor for key, tensor in tensors.items()}
    return {kind: named[kind] for kind in ("weight", "bias") if kind in named}


def _in_router_order(adapters: Mapping[str, str]) -> dict[str, str]:
    """PEFT numbers experts by position, but routes them in the order of the keys, taken as numbers."""
    items = list(adapters.items())
    if sorted(adapters) == sorted(str(index) for index in range(len(items))):
        return dict(items[int(key)] for key in adapters)
    return dict(items)


def resolve_experts(folder: Path, adapters: Mapping[str, Path | str]) -> dict[str, Path]:
    """Find the experts where the paths say, or else inside `folder` under the last part of the path.

    Raises:
        FinLoraError: If none is named or one is in neither place.
    """
    if not adapters:
        raise FinLoraError(f"{folder} names no experts; give their folders (adapters).")
    found = {}
    for name, path in adapters.items():
        places = [
            Path(path),
            folder / path,
            folder / Path(path).name,
            folder / name,
            folder / "adapters" / name,
        ]
        existing = [place for place in places if (place / CONFIG_FILE).is_file()]
        if not existing:
            raise FinLoraError(
                f"The expert {name} of {folder} is not at {path}; give the folders of all experts (adapters)."
            )
        found[name] = existing[0]
    return found


def router_settings(folder: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """Translate the fields that PEFT and the xlora package share into settings of our X-LoRA router.

    Raises:
        FinLoraError: If the scaling pass runs with experts on, which a mixture does not do.
    """
    values = {name: config.get(name, default) for name, default in XLORA_DEFAULTS.items()}
    if values["scaling_pass_value"] != 0:
        raise FinLoraError(
            f"The router of {folder} was trained with scaling_pass_value {values['scaling_pass_value']}; a "
            "mixture runs the scaling pass on the plain base, which is scaling_pass_value 0."
        )
    return {
        "depth": values["xlora_depth"],
        "width": values["xlora_size"],
        "dropout": values["xlora_dropout_p"],
        "per_module": values["layerwise_scalings"],
        "softmax": values["enable_softmax"],
        "temperature": values["softmax_temperature"],
        "top_k": values["top_k_lora"],
        "renormalize": "softmax" if values["enable_softmax_topk"] else "none",
        "scale": values["global_scaling_weight"],
    }


def router_weights(linears: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Name the tensors of linear layers, first to last, as our X-LoRA router does."""
    return {
        f"linears.{index}.{kind}": tensor.float()
        for index, linear in enumerate(linears)
        for kind, tensor in linear.items()
    }


def export_peft_xlora(mixture: SavableMixture, folder: Path | str) -> Path:
    """Write a mixture as an X-LoRA folder that PEFT loads, with its experts inside.

    PEFT reads the experts by the absolute paths written there; after moving the folder, pass it `adapters`.

    Args:
        mixture: A `MixtureForCausalLM` with an X-LoRA router.
        folder: Folder to make; it must not exist.

    Returns:
        The folder.

    Raises:
        FinLoraError: If the folder exists, or the router does what PEFT cannot express.
    """
    folder = Path(folder)
    if folder.exists():
        raise FinLoraError(f"{folder} exists already; choose another folder, nothing was overwritten.")
    config, weights = _to_peft(mixture)
    folder.mkdir(parents=True)
    for index, source in enumerate(mixture.bank.sources):
        (folder / str(index)).mkdir()
        for name in (CONFIG_FILE, WEIGHTS_FILE, METADATA_FILE):
            if (source.folder / name).is_file():
                shutil.copy2(source.folder / name, folder / str(index) / name)
    save_tensors(folder / WEIGHTS_FILE, weights)
    adapters = {str(index): str(folder.resolve() / str(index)) for index in range(mixture.bank.expert_count)}
    XLoraConfig(
        **config, adapters=adapters, task_type="CAUSAL_LM", base_model_name_or_path=mixture.origin.name
    ).save_pretrained(str(folder))
    return folder


def _to_peft(mixture: SavableMixture) -> tuple[dict[str, Any], dict[str, Tensor]]:
    settings = mixture.router.settings_as_dict()
    if mixture.mode.trained_as != EXACT:
        raise FinLoraError(
            f"PEFT cannot express the mode {mixture.mode.name}; only mixtures of mode exact or draft "
            "can be exported."
        )
    if (
        mixture.router.name != "xlora"
        or settings["null_expert"]
        or settings["context_width"]
        or not (settings["relu"] or settings["depth"] == 1)
    ):
        raise FinLoraError(
            f"PEFT cannot express this {mixture.router.name} router; only X-LoRA routers without a null "
            "expert, without a context_width and with ReLU can be exported."
        )
    weights = {name: tensor.float().clone() for name, tensor in mixture.router.state_dict().items()}
    renormalized = settings["renormalize"] == "sum" and settings["top_k"] is not None
    if renormalized:
        # Shares among the chosen are a softmax over their outputs, where PEFT applies no temperature.
        for kind in ("weight", "bias"):
            if (last := f"linears.{settings['depth'] - 1}.{kind}") in weights:
                weights[last] /= settings["temperature"]
    config = {
        "hidden_size": weights["linears.0.weight"].shape[1],
        "enable_softmax": settings["softmax"] and not renormalized,
        "enable_softmax_topk": renormalized or settings["renormalize"] == "softmax",
        "layerwise_scalings": settings["per_module"],
        "xlora_depth": settings["depth"],
        "xlora_size": settings["width"],
        "xlora_dropout_p": settings["dropout"],
        "use_trainable_adapters": False,
        "softmax_temperature": settings["temperature"],
        "top_k_lora": settings["top_k"],
        "scaling_pass_value": 0.0,
        "global_scaling_weight": settings["scale"],
    }
    exported = {}
    for index, number in enumerate(_layer_numbers(settings)):
        weight = weights[f"linears.{index}.weight"]
        prefix = f"base_model.{LAYERS}{number}"
        exported[f"{prefix}.weight"] = weight
        exported[f"{prefix}.bias"] = weights.get(f"linears.{index}.bias", weight.new_zeros(weight.shape[0]))
    return config, exported
