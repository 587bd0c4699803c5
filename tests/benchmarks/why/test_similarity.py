"""Similarity from factors against the dense updates that PEFT makes."""

import json
import shutil
from collections.abc import Callable
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import LlamaForCausalLM

from finlora.benchmarks.why.similarity import MEASURES, measure_similarity, row_and_column_space
from finlora.experts.errors import FinLoraError
from finlora.moe.merging.updates import Update


@pytest.fixture
def folders(make_expert: Callable[..., Path]) -> dict[str, Path]:
    """Experts of different ranks, scales and layers."""
    return {
        "plain": make_expert("plain", seed=1),
        "scaled": make_expert("scaled", seed=2, r=6, lora_alpha=3, use_rslora=True),
        "partial": make_expert("partial", seed=3, r=3, target_modules=["q_proj", "down_proj"]),
    }


@pytest.fixture
def dense(
    folders: dict[str, Path], make_tiny_llama: Callable[..., LlamaForCausalLM]
) -> dict[str, dict[str, np.ndarray]]:
    """Every update as PEFT itself forms it, by expert and layer."""
    updates = {}
    for name, folder in folders.items():
        model = PeftModel.from_pretrained(make_tiny_llama(), str(folder))
        updates[name] = {
            layer.removeprefix("base_model.model."): module.get_delta_weight("default").double().numpy()
            for layer, module in model.named_modules()
            if hasattr(module, "get_delta_weight")
        }
    return updates


def brute_force(measure: str, one: np.ndarray, other: np.ndarray) -> float:
    """A measure between two dense updates."""
    if measure == "cosine":
        return float((one * other).sum() / np.sqrt((one**2).sum() * (other**2).sum()))
    if measure == "sign_conflict":
        weights = np.abs(one) * np.abs(other)
        return float(weights[np.sign(one) != np.sign(other)].sum() / weights.sum())
    turned = (one.T, other.T) if measure == "row_overlap" else (one, other)
    angles = scipy.linalg.subspace_angles(*(scipy.linalg.orth(each, rcond=1e-5) for each in turned))
    return float((np.cos(angles) ** 2).mean())


@pytest.mark.parametrize("measure", MEASURES)
def test_every_layer_is_as_dense_updates_say(
    measure: str, folders: dict[str, Path], dense: dict[str, dict[str, np.ndarray]]
):
    found = measure_similarity(folders)
    assert found.experts == tuple(folders)
    assert set(found.layers) == set(dense["plain"])
    compared = 0
    for (index, layer), (i, one), (j, other) in product(
        enumerate(found.layers), enumerate(folders), enumerate(folders)
    ):
        value = found.by_layer[measure][index, i, j]
        if layer in dense[one] and layer in dense[other]:
            assert value == pytest.approx(
                brute_force(measure, dense[one][layer], dense[other][layer]), abs=1e-5
            )
            compared += 1
        else:
            assert np.isnan(value)
    assert compared == 10 * 4 + 4 * 5


def test_over_all_layers_the_updates_are_one_long_vector(
    folders: dict[str, Path], dense: dict[str, dict[str, np.ndarray]]
):
    found = measure_similarity(folders)
    zero = {layer: np.zeros_like(update) for layer, update in dense["plain"].items()}
    long = {
        name: np.concatenate([(zero | updates)[layer].ravel() for layer in found.layers])
        for name, updates in dense.items()
    }
    for (i, one), (j, other) in product(enumerate(folders), enumerate(folders)):
        assert found.overall["cosine"][i, j] == pytest.approx(
            brute_force("cosine", long[one], long[other]), abs=1e-6
        )
    for measure in ("row_overlap", "column_overlap"):
        assert found.overall[measure][0, 2] == pytest.approx(np.nanmean(found.by_layer[measure][:, 0, 2]))
    shared = [layer for layer in found.layers if layer in dense["partial"]]
    both = [np.concatenate([dense[name][layer].ravel() for layer in shared]) for name in ("plain", "partial")]
    assert found.overall["sign_conflict"][0, 2] == pytest.approx(
        brute_force("sign_conflict", *both), abs=1e-6
    )


def test_all_matrices_are_symmetric_and_chance_is_what_unrelated_experts_have(folders: dict[str, Path]):
    found = measure_similarity(folders)
    for measure, values in found.overall.items():
        assert np.array_equal(values, values.T)
        assert values[0, 1] == pytest.approx(found.chance[measure], abs=0.06), measure


def changed(source: Path, name: str, *, factor: float) -> Path:
    """A copy of an expert with its update multiplied."""
    folder = source.parent / name
    shutil.copytree(source, folder)
    tensors = load_file(folder / "adapter_model.safetensors")
    save_file(
        {key: tensor * (factor if "lora_B" in key else 1.0) for key, tensor in tensors.items()},
        folder / "adapter_model.safetensors",
    )
    return folder


def test_the_same_direction_and_the_opposite_one(folders: dict[str, Path]):
    plain = folders["plain"]
    found = measure_similarity(
        {
            "plain": plain,
            "longer": changed(plain, "longer", factor=3.0),
            "against": changed(plain, "against", factor=-0.5),
        }
    ).overall
    assert found["cosine"][0] == pytest.approx([1, 1, -1])
    assert found["sign_conflict"][0] == pytest.approx([0, 0, 1])
    for measure in ("row_overlap", "column_overlap"):
        assert found[measure][0] == pytest.approx([1, 1, 1])


def test_alpha_counts_only_for_the_length(folders: dict[str, Path]):
    louder = changed(folders["plain"], "louder", factor=1.0)
    config = json.loads((louder / "adapter_config.json").read_text())
    (louder / "adapter_config.json").write_text(json.dumps(config | {"lora_alpha": 32}))
    found = measure_similarity({**folders, "louder": louder}).overall
    for measure in MEASURES:
        assert found[measure][3, :3] == pytest.approx(found[measure][0, :3])


def test_a_rank_that_is_not_used_is_no_direction():
    generator = torch.Generator().manual_seed(0)
    down = torch.randn(4, 12, generator=generator)
    up = torch.randn(10, 4, generator=generator)
    up[:, 3] = 0
    rows, columns = row_and_column_space(Update(down, up))
    assert rows.shape == (12, 3)
    assert columns.shape == (10, 3)
    torch.testing.assert_close(rows @ (rows.T @ down[:3].double().T), down[:3].double().T)


def test_one_expert_has_nobody_to_be_compared_with(folders: dict[str, Path]):
    with pytest.raises(FinLoraError, match="two or more experts"):
        measure_similarity({"plain": folders["plain"]})


def test_blocks_are_in_the_order_of_their_numbers(
    make_expert: Callable[..., Path], make_tiny_llama: Callable[..., LlamaForCausalLM]
):
    deep = {
        name: make_expert(
            name, seed=seed, model=make_tiny_llama(num_hidden_layers=11), target_modules=["q_proj"]
        )
        for seed, name in enumerate(("a", "b"))
    }
    layers = measure_similarity(deep).layers
    assert layers == tuple(f"model.layers.{block}.self_attn.q_proj" for block in range(11))
