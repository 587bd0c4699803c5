"""A registry for the tiny base, and small experts that are written once for all tests."""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from finlora.benchmarks.serving.random_experts import make_random_experts
from finlora.experts.base_model import Base
from finlora.moe.bank import ExpertBank
from finlora.moe.checkpoint import save_mixture
from finlora.moe.mixture import MixtureForCausalLM
from finlora.moe.mode import EXACT, Mode
from finlora.moe.serving.registry import ExpertRegistry
from finlora.router.loading import build_router
from finlora.router.settings import XLoRASettings
from finlora.router.xlora import XLoRARouter

SIZES = {
    "vocab_size": 259,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


@pytest.fixture(scope="session")
def small_base(tiny_tokenizer) -> Base:
    """The tiny base; these tests do not change it."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LlamaForCausalLM(LlamaConfig(**SIZES))
    return Base(model.requires_grad_(False).eval(), tiny_tokenizer, "tiny", "revision-1", "none")


@pytest.fixture(scope="session")
def written(small_base, tmp_path_factory) -> dict[str, Path]:
    """Eight experts e0 to e7 of ranks 2, 3 and 4."""
    folder = tmp_path_factory.mktemp("written")
    return make_random_experts(small_base, folder, 8, ranks=(2, 3, 4), name="e{}")


@pytest.fixture
def copied(written, tmp_path) -> Path:
    """A copy of e0 that a test may damage."""
    return shutil.copytree(written["e0"], tmp_path / "copied")


@pytest.fixture
def registry(tmp_path, small_base) -> Iterator[ExpertRegistry]:
    """An empty registry."""
    with ExpertRegistry(tmp_path / "registry", small_base, build_router=build_router) as opened:
        yield opened


def stored_folders(registry: ExpertRegistry) -> int:
    """Number of folders with files that a registry has on the disk."""
    return len(list((registry.folder / "contents").iterdir()))


@pytest.fixture
def saved_mixture(written, small_base) -> Path:
    """A mixture of e1 and e3 with a random router that looks back, saved beside them."""
    folder = written["e0"].parent / "mixture"
    if not folder.exists():
        save_mixture(make_mixture(written, small_base, ["e1", "e3"]), folder)
    return folder


def make_mixture(
    written: Mapping[str, Path], base: Base, names: Sequence[str], mode: Mode = EXACT
) -> MixtureForCausalLM:
    """A mixture with a random router that looks back."""
    bank = ExpertBank.from_folders({name: written[name] for name in names}, base)
    settings = XLoRASettings(width=16, depth=2, context_width=8)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        router = XLoRARouter(settings, d_model=32, module_count=bank.module_count, expert_count=len(names))
    return MixtureForCausalLM.build(base, bank, router, mode)
