"""Whether a folder that may be hostile holds an expert that can be served on a base."""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...experts.adapter import CONFIG_FILE, METADATA_FILE, WEIGHTS_FILE, ExpertFiles, read_expert
from ...experts.base_model import Base
from ...experts.errors import FinLoraError
from ..bank import lora_scale, read_matrices, refuse_beyond_lora
from .registry_index import LayerShape

PLAIN_PATTERN = re.compile(r"\^?[\w.\\-]{1,300}\$?", re.ASCII)
"""PEFT reads keys of rank_pattern as regular expressions; with choices or repetition in them, matching one
name can take forever."""


@dataclass(frozen=True, kw_only=True)
class RegistryLimits:
    """What an expert or a mixture may have at most."""

    rank: int = 512
    weights_bytes: int = 4 * 2**30
    json_bytes: int = 2**20
    header_bytes: int = 4 * 2**20
    """Of the safetensors file; a model of 1,000 adapted layers needs 0.3 MB."""

    def for_sizes(self, sizes: Mapping[str, tuple[int, int]]) -> "RegistryLimits":
        """Limit the weights to what the highest rank in float64 takes on layers of these sizes."""
        most = 8 * self.rank * sum(map(sum, sizes.values())) + self.header_bytes
        return replace(self, weights_bytes=min(self.weights_bytes, most))

    def expert_files(self) -> dict[str, int]:
        """Largest allowed size of each file of an expert."""
        return {
            CONFIG_FILE: self.json_bytes,
            METADATA_FILE: self.json_bytes,
            WEIGHTS_FILE: self.weights_bytes,
        }


def linear_sizes(base: Base) -> dict[str, tuple[int, int]]:
    """Return d_in and d_out of the layers that a served expert may adapt, in the order of the base."""
    head = base.model.get_output_embeddings()
    return {
        name: (module.in_features, module.out_features)
        for name, module in base.model.named_modules()
        if isinstance(module, nn.Linear) and module is not head
    }


def check_expert(
    name: str, folder: Path, base: Base, sizes: Mapping[str, tuple[int, int]], limits: RegistryLimits
) -> tuple[ExpertFiles, dict[str, LayerShape]]:
    """Read an expert and check everything about it.

    Args:
        name: Of the expert, for messages.
        folder: With copies of its files, so that nobody changes them meanwhile.
        base: What it has to fit.
        sizes: What `linear_sizes` says of the base.
        limits: What it may have at most.

    Returns:
        What was read, and the shapes of its layers in the order of the base's modules.

    Raises:
        FinLoraError: If it cannot be served.
    """
    _check_config(name, folder / CONFIG_FILE, limits)
    check_header(folder / WEIGHTS_FILE, limits)
    if (folder / METADATA_FILE).exists():
        parse_json(folder / METADATA_FILE)
    try:
        files = read_expert(folder)
        refuse_beyond_lora(name, files.config)
        files.check_fits(base)
        matrices = read_matrices(name, files)
    except FinLoraError:
        raise
    except Exception as error:
        # Values of a wrong type get deep into PEFT before anything notices.
        raise FinLoraError(f"The expert {name} cannot be read: {error!r:.200}.") from error
    for key, tensor in files.tensors.items():
        if not tensor.is_floating_point():
            raise FinLoraError(
                f"The expert {name} stores {key} as {tensor.dtype}; only floating point is served."
            )
    for module, (down, up) in matrices.items():
        _check_matrices(name, module, down, up, base, sizes, limits)
    shapes = {
        module: LayerShape(
            len(matrices[module][0]),
            d_in,
            d_out,
            lora_scale(name, files.config, module, len(matrices[module][0])),
        )
        for module, (d_in, d_out) in sizes.items()
        if module in matrices
    }
    return files, shapes


def check_header(file: Path, limits: RegistryLimits) -> None:
    """Check a safetensors file's header before anything parses it; an absent file passes.

    Raises:
        FinLoraError: If it is longer than the file or than allowed.
    """
    if not file.is_file():
        return
    with file.open("rb") as stream:
        start = stream.read(9)
    length, size = int.from_bytes(start[:8], "little"), file.stat().st_size
    if len(start) < 9 or start[8:] != b"{" or length > size - 8:
        raise FinLoraError(f"{file} is truncated or no safetensors file; copy it again.")
    if length > limits.header_bytes:
        raise FinLoraError(
            f"{file} has a header of {length:,} bytes; at most {limits.header_bytes:,} are allowed."
        )


def _check_matrices(
    name: str,
    module: str,
    down: Tensor,
    up: Tensor,
    base: Base,
    sizes: Mapping[str, tuple[int, int]],
    limits: RegistryLimits,
) -> None:
    rank = len(down)
    if module not in sizes:
        raise FinLoraError(
            f"The expert {name} adapts {module}, which is not a linear layer inside the decoder blocks of "
            f"{base.name}; only those are served."
        )
    if (down.shape[1], up.shape[0]) != sizes[module]:
        raise FinLoraError(
            f"The expert {name} was trained on another base: its layer {module} goes from {down.shape[1]} to "
            f"{up.shape[0]} features, that of {base.name} from {sizes[module][0]} to {sizes[module][1]}."
        )
    if not 1 <= rank <= limits.rank:
        raise FinLoraError(f"The expert {name} has rank {rank} in {module}; allowed are 1 to {limits.rank}.")
    # A value beyond the base's own type would become infinite on the device.
    largest = torch.finfo(base.model.dtype).max
    for matrix, values in (("lora_A", down), ("lora_B times its scale", up)):
        if not bool((values.abs() <= largest).all()):
            raise FinLoraError(
                f"The expert {name} has values in {matrix} of {module} that are not finite numbers of type "
                f"{str(base.model.dtype).removeprefix('torch.')}; train it again."
            )


def _check_config(name: str, file: Path, limits: RegistryLimits) -> None:
    """Check the fields that are computed with; PEFT itself checks hardly any type."""
    config = parse_json(file)
    where = f"The config of expert {name}"
    for field, allowed in (("rank_pattern", int), ("alpha_pattern", (int, float))):
        patterns = config.get(field) or {}
        if not isinstance(patterns, dict):
            raise FinLoraError(
                f"{where} has a {field} that is not an object; give names of layers with numbers."
            )
        for pattern, value in patterns.items():
            if PLAIN_PATTERN.fullmatch(pattern) is None:
                raise FinLoraError(
                    f"{where} has the {field} {pattern!r:.100}; give names of layers, no regular expressions."
                )
            _check_number(f"{where} has in {field} the value", value, allowed)
    _check_number(f"{where} has the rank r =", config.get("r", 8), int)
    _check_number(f"{where} has lora_alpha =", config.get("lora_alpha", 8), (int, float))
    if not isinstance(config.get("base_model_name_or_path"), str | None):
        raise FinLoraError(f"{where} has a base_model_name_or_path that is not text.")
    if not isinstance(config.get("use_rslora", False), bool):
        raise FinLoraError(f"{where} has a use_rslora that is neither true nor false.")
    for value in (config.get("r", 8), *(config.get("rank_pattern") or {}).values()):
        if not 1 <= value <= limits.rank:
            raise FinLoraError(f"{where} has rank {value:.0f}; allowed are 1 to {limits.rank}.")


def _check_number(what: str, value: Any, allowed: type | tuple[type, ...]) -> None:
    if isinstance(value, bool) or not isinstance(value, allowed) or abs(value) > 1e9 or math.isnan(value):
        raise FinLoraError(
            f"{what} {value!r:.100}; give {'a whole' if allowed is int else 'a finite'} number."
        )


def parse_json(file: Path) -> dict[str, Any]:
    """Read a small JSON object that may be hostile.

    Raises:
        FinLoraError: If it is missing, or no JSON object.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise FinLoraError(f"{file.parent} has no {file.name}.") from error
    except (ValueError, RecursionError) as error:
        raise FinLoraError(f"{file} is not valid JSON: {error!s:.200}.") from error
    if not isinstance(content, dict):
        raise FinLoraError(f"{file} must hold a JSON object.")
    return content
