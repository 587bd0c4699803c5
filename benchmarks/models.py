"""Opens what can answer: a base, an adapter on it, the average of adapters, a mixture with a trained router.

Everything is opened on a base that is already loaded and left as it was, so one loaded base serves many
evaluations.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from peft import PeftModel
from torch import nn

from ..experts.adapter import CONFIG_FILE, read_expert
from ..experts.base_model import EMBEDDED_BASE, Base
from ..experts.errors import FinLoraError
from ..moe.bank import ExpertBank
from ..moe.checkpoint import MIXTURE_FILE, read_mixture
from ..moe.mixture import MixtureForCausalLM
from ..moe.routing import ConstantRouter
from ..router import load_mixture

BASE = "base"
DEFAULT_QUANTIZATION = "nf4"


@dataclass(frozen=True)
class Source:
    """What a user named as a model.

    Attributes:
        kind: What it is.
        folder: Its folder; None for the base itself.
        base: Name of the base it stands on.
        quantization: How that base is stored.
    """

    kind: Literal["base", "expert", "mixture"]
    folder: Path | None
    base: str
    quantization: str


def identify(model: str) -> Source:
    """Find out what the word `base`, an expert folder or a mixture folder is, without loading it.

    Raises:
        FinLoraError: It is none of them.
    """
    if model == BASE:
        return Source("base", None, EMBEDDED_BASE, DEFAULT_QUANTIZATION)
    folder = Path(model)
    if (folder / MIXTURE_FILE).is_file():
        files = read_mixture(folder)
        return Source(
            "mixture", folder, files.base_name or EMBEDDED_BASE, files.quantization or DEFAULT_QUANTIZATION
        )
    if (folder / CONFIG_FILE).is_file():
        expert = read_expert(folder)
        metadata = expert.metadata or {}
        base = metadata.get("base") or expert.config.base_model_name_or_path or EMBEDDED_BASE
        return Source("expert", folder, str(base), str(metadata.get("quantization", DEFAULT_QUANTIZATION)))
    raise FinLoraError(
        f"{model!r} cannot be evaluated: give `{BASE}`, an expert folder (with {CONFIG_FILE}) or a mixture "
        f"folder (with {MIXTURE_FILE})."
    )


@contextmanager
def open_model(source: Source, base: Base) -> Iterator[nn.Module]:
    """Open what `identify` found, on a loaded base."""
    if source.folder is None:
        opened = open_base(base)
    elif source.kind == "expert":
        opened = open_adapter(source.folder, base)
    else:
        opened = open_mixture(source.folder, base)
    with opened as model:
        yield model


@contextmanager
def open_base(base: Base) -> Iterator[nn.Module]:
    """The base alone."""
    yield base.model


@contextmanager
def open_adapter(folder: Path, base: Base) -> Iterator[nn.Module]:
    """The base with one adapter, by PEFT itself, so any adapter that PEFT knows can be evaluated alone.

    Raises:
        FinLoraError: The adapter cannot be read or was trained on another base.
    """
    read_expert(folder).check_fits(base)
    model = PeftModel.from_pretrained(base.model, str(folder)).eval()
    try:
        yield model
    finally:
        model.unload()


@contextmanager
def open_uniform(folders: Mapping[str, Path], base: Base) -> Iterator[nn.Module]:
    """The mixture of experts with equal, constant weights.

    Raises:
        FinLoraError: An expert cannot be read or does not fit the base.
    """
    bank = ExpertBank.from_folders(folders, base)
    yield MixtureForCausalLM.build(base, bank, ConstantRouter.uniform(expert_count=bank.expert_count))


@contextmanager
def open_mixture(folder: Path, base: Base) -> Iterator[nn.Module]:
    """A mixture with its trained router.

    Raises:
        FinLoraError: The mixture cannot be read or was made on another base.
    """
    yield load_mixture(folder, base=base)
