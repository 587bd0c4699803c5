"""From a folder to a running mixture: our own format, PEFT X-LoRA folders and xlora package folders."""

from collections.abc import Mapping
from pathlib import Path

import torch

from ..experts.base_model import Base, load_base
from ..experts.errors import FinLoraError
from ..moe.bank import ExpertBank
from ..moe.checkpoint import MixtureFiles, read_mixture
from ..moe.layer_gates import LayerRouter
from ..moe.mixture import MixtureForCausalLM
from ..moe.peft_xlora import read_peft_xlora
from ..moe.routing import ConstantRouter, Router
from ..moe.xlora_package import read_xlora_package
from .xlora import XLoRARouter

ROUTERS: dict[str, type[Router]] = {
    "xlora": XLoRARouter,
    "constant": ConstantRouter,
    "layer_gates": LayerRouter,
}
"""Every router that a mixture's folder may name."""


def load_mixture(
    folder: Path | str,
    quantization: str | None = None,
    base: str | Base | None = None,
    device: str | torch.device | None = None,
) -> MixtureForCausalLM:
    """Load a mixture that `save_mixture` wrote.

    Args:
        folder: Holds `mixture.json` and `router.safetensors`.
        quantization: `none`, `int8` or `nf4`; by default as it was saved.
        base: A loaded base, or the name of one, instead of the base that is named in the folder.
        device: Where to load the base; by default CUDA where there is one.

    Raises:
        FinLoraError: If the folder, its base or its experts are missing, damaged or not what was saved.
    """
    files = read_mixture(folder)
    loaded = _load_base(files, quantization, base, device)
    if base is None and files.base_revision != loaded.revision:
        raise FinLoraError(
            f"The mixture {files.folder} was saved on {loaded.name} of revision {files.base_revision}, found "
            f"is {loaded.revision}; restore the base, or name it explicitly (base) if its weights are the "
            "same."
        )
    return _build(files, loaded)


def from_peft_xlora(
    folder: Path | str,
    *,
    base: str | Base | None = None,
    quantization: str | None = None,
    adapters: Mapping[str, Path | str] | None = None,
    device: str | torch.device | None = None,
) -> MixtureForCausalLM:
    """Load an X-LoRA model that PEFT saved; on a quantized base too, which PEFT itself cannot do.

    Args:
        folder: Holds `adapter_config.json` of type XLORA and `adapter_model.safetensors`.
        base: A loaded base, or the name of one; by default the one that the folder names.
        quantization: `none` (the default), `int8` or `nf4`.
        adapters: Folders of the experts in the order of the router's outputs, instead of the stored paths.
        device: Where to load the base; by default CUDA where there is one.

    Raises:
        FinLoraError: If something is missing, damaged, or beyond what a mixture can reproduce.
    """
    files = read_peft_xlora(folder, adapters)
    return _build(files, _load_base(files, quantization, base, device))


def from_xlora_package(
    folder: Path | str,
    *,
    base: str | Base | None = None,
    quantization: str | None = None,
    adapters: Mapping[str, Path | str] | None = None,
    device: str | torch.device | None = None,
) -> MixtureForCausalLM:
    """Load an X-LoRA model that the xlora package saved.

    Args:
        folder: Holds `xlora_config.json` and `xlora_classifier.safetensors`.
        base: A loaded base, or the name of one; by default the one that the folder names.
        quantization: `none` (the default), `int8` or `nf4`.
        adapters: Folders of the experts in the order of the router's outputs, instead of those in the folder.
        device: Where to load the base; by default CUDA where there is one.

    Raises:
        FinLoraError: If something is missing, damaged, or beyond what a mixture can reproduce.
    """
    files = read_xlora_package(folder, adapters)
    return _build(files, _load_base(files, quantization, base, device))


def _load_base(
    files: MixtureFiles, quantization: str | None, base: str | Base | None, device: str | torch.device | None
) -> Base:
    if isinstance(base, Base):
        if quantization not in (None, base.quantization):
            raise FinLoraError(
                f"The base {base.name} is loaded with quantization {base.quantization}, asked for was "
                f"{quantization}; load it so, or give its name."
            )
        return base
    name = base or files.base_name
    if name is None:
        raise FinLoraError(f"{files.folder} does not name its base; name it (base).")
    return load_base(name, quantization or files.quantization or "none", device=device)


def _build(files: MixtureFiles, base: Base) -> MixtureForCausalLM:
    bank = ExpertBank.from_folders(files.experts, base)
    files.check_bank(bank)
    router = build_router(files, base, module_count=bank.module_count, expert_count=bank.expert_count)
    return MixtureForCausalLM.build(base, bank, router, files.mode)


def build_router(files: MixtureFiles, base: Base, *, module_count: int, expert_count: int) -> Router:
    """Build the router that a mixture's folder describes, with its weights.

    Args:
        files: What was read from the folder.
        base: The loaded base.
        module_count: Linear layers that the mixture's experts adapt together.
        expert_count: Its experts.

    Raises:
        FinLoraError: If the router's type is unknown, or its weights do not fit.
    """
    kind = ROUTERS.get(files.router_name)
    if kind is None:
        raise FinLoraError(
            f"The mixture {files.folder} has a router of type {files.router_name}; known are "
            f"{', '.join(ROUTERS)}."
        )
    router = kind.from_settings(
        dict(files.router_settings),
        d_model=base.model.config.get_text_config(decoder=True).hidden_size,
        module_count=module_count,
        expert_count=expert_count,
    )
    _load_weights(router, files)
    return router


def _load_weights(router: Router, files: MixtureFiles) -> None:
    expected = {name: tuple(tensor.shape) for name, tensor in router.state_dict().items()}
    given = {name: tuple(tensor.shape) for name, tensor in files.router_weights.items()}
    for name in sorted(expected | given):
        if expected.get(name) != given.get(name):
            raise FinLoraError(
                f"The router in {files.folder} does not fit base and experts: {name} has shape "
                f"{given.get(name)}, needed is {expected.get(name)}."
            )
    router.load_state_dict(dict(files.router_weights))
