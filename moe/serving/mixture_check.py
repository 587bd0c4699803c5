"""Whether a folder that may be hostile holds a mixture that can be served on a base."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch

from ...experts.base_model import Base
from ...experts.errors import FinLoraError
from ..checkpoint import MIXTURE_FILE, ROUTER_FILE, MixtureFiles, read_mixture
from ..routing import ConstantRouter, Router
from .expert_check import RegistryLimits, check_header, parse_json
from .expert_intake import CheckedExpert
from .near_names import check_name
from .served_mixture import ServedMixture, refuse_carried_scalings

LARGEST_SETTING = 2048
"""Of a router's whole numbers, but for sizes of its weights; a billion layers would never be built."""


@runtime_checkable
class RouterBuilder(Protocol):
    """Makes the router that a mixture's folder describes, with its weights."""

    def __call__(self, files: MixtureFiles, base: Base, *, module_count: int, expert_count: int) -> Router:
        """Return the router, on the CPU.

        Raises:
            FinLoraError: If its type is unknown, or its weights do not fit.
        """
        ...


@dataclass(frozen=True)
class MixtureDescription:
    """A mixture that was read, with its experts still to be checked."""

    files: MixtureFiles
    content: Mapping[str, Any]
    """The whole `mixture.json`."""
    experts: Mapping[str, Path]
    """Folder of each expert, by its name inside the mixture."""

    def with_paths(self, paths: Mapping[str, str]) -> dict[str, Any]:
        """Return `mixture.json` with other paths of the experts, by their names."""
        entries = [entry | {"path": paths[entry["name"]]} for entry in self.content["experts"]]
        return {**self.content, "experts": entries}


def mixture_files(limits: RegistryLimits) -> dict[str, int]:
    """Largest allowed size of each file of a mixture."""
    return {MIXTURE_FILE: limits.json_bytes, ROUTER_FILE: limits.weights_bytes}


def check_mixture(
    name: str, source: Path, staged: Path, base: Base, limits: RegistryLimits
) -> MixtureDescription:
    """Read a mixture and check everything about it but its experts.

    Args:
        name: Of the mixture, for messages.
        source: Where it came from; paths of its experts are relative to this folder.
        staged: Copies of its files, so that nobody changes them meanwhile.
        base: What it has to fit.
        limits: What it may have at most.

    Raises:
        FinLoraError: If it cannot be served.
    """
    content = parse_json(staged / MIXTURE_FILE)
    check_header(staged / ROUTER_FILE, limits)
    try:
        files = read_mixture(staged)
        experts = {entry["name"]: source / entry["path"] for entry in content["experts"]}
    except FinLoraError:
        raise
    except Exception as error:
        raise FinLoraError(f"The mixture {name} cannot be read: {error!r:.200}.") from error
    if len(experts) != len(content["experts"]) or not experts:
        raise FinLoraError(f"The mixture {name} needs experts, each with a name of its own.")
    for called in experts:
        check_name(called)
    refuse_carried_scalings(name, files.mode)
    if files.base_revision != base.revision:
        raise FinLoraError(
            f"The mixture {name} was saved on {files.base_name} of revision {files.base_revision}, served is "
            f"{base.name} of revision {base.revision}; serve that base, or train the router on this one."
        )
    for key, tensor in files.router_weights.items():
        if not bool(torch.isfinite(tensor).all()):
            raise FinLoraError(f"The router of mixture {name} has values in {key} that are not finite.")
    return MixtureDescription(files, content, experts)


def check_mixture_experts(
    name: str, files: MixtureFiles, experts: Mapping[str, CheckedExpert], sizes: Mapping[str, tuple[int, int]]
) -> None:
    """Check that the experts are the ones that the router was trained for.

    Args:
        name: Of the mixture, for messages.
        files: Of the mixture.
        experts: By name inside the mixture.
        sizes: What `linear_sizes` says of the base.

    Raises:
        FinLoraError: If an expert's weights or the adapted layers differ.
    """
    for called, expert in experts.items():
        if (files.expert_hashes or {}).get(called) != expert.weights_sha256:
            raise FinLoraError(
                f"The weights of expert {called} changed since the mixture {name} was saved; restore them, "
                "or train the router again."
            )
    adapted = tuple(module for module in sizes if any(module in one.layers for one in experts.values()))
    if files.module_names != adapted:
        raise FinLoraError(
            f"The mixture {name} was saved for {len(files.module_names or ())} adapted linear layers, its "
            f"experts now adapt {len(adapted)} or others; restore the experts, or train the router again."
        )


def check_router(name: str, files: MixtureFiles, base: Base, build_router: RouterBuilder) -> None:
    """Check that a mixture's router can be built and served.

    Args:
        name: Of the mixture, for messages.
        files: Of the mixture.
        base: What it has to fit.
        build_router: Makes the router.

    Raises:
        FinLoraError: If it cannot be served.
    """
    sizes = {size for tensor in files.router_weights.values() for size in tensor.shape}
    for field, value in files.router_settings.items():
        if isinstance(value, int) and abs(value) > LARGEST_SETTING and value not in sizes:
            raise FinLoraError(
                f"The router of mixture {name} has {field} = {value:.0f}, which is not a size of its weights."
            )
    modules = files.module_names or ()
    # Settings may ask for more memory than there is; on `meta` only shapes are compared with the weights.
    device = "cpu" if files.router_name == ConstantRouter.name else "meta"
    try:
        with torch.device(device), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            router = build_router(files, base, module_count=len(modules), expert_count=len(files.experts))
            ServedMixture(name, tuple(files.experts), modules, router, files.mode)
    except FinLoraError:
        raise
    except Exception as error:
        raise FinLoraError(f"The router of mixture {name} cannot be read: {error!r:.200}.") from error
