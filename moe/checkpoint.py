"""A mixture on disk: `mixture.json` (base, experts, module order, router, mode) and `router.safetensors`.

Base and experts are named, not copied: experts by a path relative to the mixture's folder. Reading gives a
`MixtureFiles`, which the importers of foreign formats give as well; who builds the router from it is not
decided here.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..experts.atomic_write import write_json
from ..experts.base_model import Base
from ..experts.errors import FinLoraError
from .bank import ExpertBank
from .mode import EXACT, Mode
from .routing import Router

MIXTURE_FILE = "mixture.json"
ROUTER_FILE = "router.safetensors"
FORMAT = "finlora-mixture"
FORMAT_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class MixtureFiles:
    """Everything that a mixture's folder says, before base and experts are loaded."""

    folder: Path
    """Where it was read from."""
    base_name: str | None
    """Name of the base, if the folder says it."""
    base_revision: str | None = None
    """Revision of the base, if the folder says it."""
    quantization: str | None = None
    """Quantization of the base, if the folder says it."""
    experts: Mapping[str, Path]
    """Folder of each expert, by name, in the order of the router's outputs."""
    expert_hashes: Mapping[str, str] | None = None
    """SHA-256 of each expert's weights, if the folder says it."""
    module_names: tuple[str, ...] | None = None
    """Adapted linear layers in the order of the router's outputs; None means the order of the base's
    modules."""
    router_name: str
    """Key in `finlora.router.ROUTERS`."""
    router_settings: Mapping[str, Any]
    """What the router's `from_settings` takes."""
    router_weights: Mapping[str, Tensor]
    """The router's state dict."""
    mode: Mode = EXACT
    """How scalings come about."""

    def check_bank(self, bank: ExpertBank) -> None:
        """Check that the experts that were found are the ones that the router was trained for.

        Raises:
            FinLoraError: If an expert's weights or the adapted linear layers differ.
        """
        for source in bank.sources:
            expected = (self.expert_hashes or {}).get(source.name)
            if expected is not None and expected != source.weights_sha256:
                raise FinLoraError(
                    f"The weights of expert {source.name} in {source.folder} changed since the mixture "
                    f"{self.folder} was saved; restore them, or train the router again."
                )
        if self.module_names is not None and self.module_names != bank.module_names:
            raise FinLoraError(
                f"The mixture {self.folder} was saved for {len(self.module_names)} adapted linear layers, "
                f"its experts now adapt {len(bank.module_names)} or others; restore the experts, or train "
                "the router again."
            )


@runtime_checkable
class SavableMixture(Protocol):
    """The parts of a mixture that its folder describes."""

    origin: Base
    bank: ExpertBank
    router: Router
    mode: Mode


def save_mixture(mixture: SavableMixture, folder: Path | str) -> Path:
    """Write a mixture's folder; `mixture.json` comes last, so an interrupted save leaves no mixture behind.

    Args:
        mixture: A `MixtureForCausalLM`.
        folder: Folder to write to, made if missing.

    Returns:
        The folder.

    Raises:
        FinLoraError: If the folder already holds a mixture.
    """
    folder = Path(folder)
    if (folder / MIXTURE_FILE).exists():
        raise FinLoraError(
            f"{folder} already holds a mixture; choose another folder, nothing was overwritten."
        )
    folder.mkdir(parents=True, exist_ok=True)
    save_tensors(folder / ROUTER_FILE, mixture.router.state_dict())
    write_json(folder / MIXTURE_FILE, _describe(mixture, folder))
    return folder


def _describe(mixture: SavableMixture, folder: Path) -> dict[str, Any]:
    base = mixture.origin
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        **mixture.mode.as_dict(),
        "base": {
            "name": str(Path(base.name).resolve()) if Path(base.name).is_dir() else base.name,
            "revision": base.revision,
            "quantization": base.quantization,
        },
        "experts": [
            {
                "name": source.name,
                "path": Path(os.path.relpath(source.folder.resolve(), folder.resolve())).as_posix(),
                "weights_sha256": source.weights_sha256,
            }
            for source in mixture.bank.sources
        ],
        "modules": list(mixture.bank.module_names),
        "router": {"type": mixture.router.name, "settings": mixture.router.settings_as_dict()},
    }


def read_mixture(folder: Path | str) -> MixtureFiles:
    """Read what `save_mixture` wrote.

    Raises:
        FinLoraError: If the folder holds no mixture, one of a newer FinLoRA, or damaged files.
    """
    folder = Path(folder)
    content = read_json(folder / MIXTURE_FILE)
    version = content.get("format_version")
    if content.get("format") != FORMAT or version != FORMAT_VERSION:
        raise FinLoraError(
            f"{folder / MIXTURE_FILE} is not a mixture that this FinLoRA reads: its format version is "
            f"{version}, this one reads version {FORMAT_VERSION}."
        )
    try:
        return MixtureFiles(
            folder=folder,
            base_name=content["base"]["name"],
            base_revision=content["base"]["revision"],
            quantization=content["base"]["quantization"],
            experts={expert["name"]: folder / expert["path"] for expert in content["experts"]},
            expert_hashes={expert["name"]: expert["weights_sha256"] for expert in content["experts"]},
            module_names=tuple(content["modules"]),
            router_name=content["router"]["type"],
            router_settings=content["router"]["settings"],
            router_weights=read_tensors(folder / ROUTER_FILE),
            mode=Mode.from_dict(content),
        )
    except (KeyError, TypeError) as error:
        raise FinLoraError(
            f"{folder / MIXTURE_FILE} is damaged: {error} is missing; save the mixture again."
        ) from error


def save_tensors(file: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write a safetensors file that is either complete or absent."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, temporary)
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        os.replace(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)


def read_tensors(file: Path) -> dict[str, Tensor]:
    """Read a safetensors file onto the CPU.

    Raises:
        FinLoraError: If it is missing, truncated or not safetensors.
    """
    if not file.is_file():
        raise FinLoraError(f"{file.parent} has no {file.name}; copy the folder again, or save it again.")
    try:
        # Read, not mapped: safetensors 0.8 never frees a few bytes for every tensor that it maps.
        return load_file(file, backend="pread")
    except (SafetensorError, OSError) as error:
        raise FinLoraError(f"{file} is truncated or no safetensors file; copy it again ({error}).") from error


def read_json(file: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        FinLoraError: If the file is missing or holds anything else.
    """
    if not file.is_file():
        raise FinLoraError(f"{file.parent} has no {file.name}, so it is not a folder of that format.")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise FinLoraError(f"{file} is not valid JSON: {error}.") from error
    if not isinstance(content, dict):
        raise FinLoraError(f"{file} must hold a JSON object.")
    return content
