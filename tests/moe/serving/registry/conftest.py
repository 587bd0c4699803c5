"""A registry for the tiny base, and small experts that are written once for all tests."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from finlora.benchmarks.serving.random_experts import make_random_experts
from finlora.experts.base_model import Base
from finlora.moe.serving.registry import ExpertRegistry
from finlora.router.loading import build_router

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
