"""Adapters of all kinds: what is trained and shared, what averages exactly, and the expert that comes out."""

import dataclasses
import json
from typing import get_args

import numpy as np
import pytest
import torch
from peft import PeftModel

from finlora.experts.adapter import read_expert
from finlora.experts.base_model import load_base
from finlora.experts.errors import FinLoraError
from finlora.experts.federated.adapters import FederatedAdapter
from finlora.experts.federated.combining import combine, nearest_of_rank
from finlora.experts.federated.expert_folder import write_expert
from finlora.experts.federated.settings import AdapterKind

from .conftest import SETTINGS

KINDS = get_args(AdapterKind)
IDS = torch.arange(3, 13).view(1, 10)


@pytest.fixture
def make(base):
    made = []

    def adapter_of(kind: AdapterKind, **changes: object) -> FederatedAdapter:
        while made:
            made.pop().remove()
        made.append(FederatedAdapter(base, dataclasses.replace(SETTINGS, adapter=kind, **changes)))
        return made[-1]

    yield adapter_of
    while made:
        made.pop().remove()


def random_update(adapter: FederatedAdapter, round_number: int, seed: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    values = adapter.read(adapter.shared(round_number))
    return {name: random.normal(size=part.shape).astype(np.float32) * 0.3 for name, part in values.items()}


def products(adapter: FederatedAdapter, tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The update of each layer, B A, with these values of the shared tensors."""
    adapter.write(tensors)
    return {layer: (up @ down).numpy() for layer, (down, up) in adapter.lora_factors().items()}


@pytest.mark.parametrize("kind", KINDS)
def test_fresh_adapter_changes_nothing_and_is_the_same_everywhere(make, base, kind) -> None:
    before = base.model(input_ids=IDS).logits.clone()
    first = make(kind)
    assert torch.equal(first.model(input_ids=IDS).logits, before)
    values = first.initial
    torch.manual_seed(99)
    second = make(kind)
    assert values.keys() == second.initial.keys()
    assert all(np.array_equal(values[name], second.initial[name]) for name in values)
    other = make(kind, seed=4)
    assert not all(np.array_equal(values[name], other.initial[name]) for name in values)


@pytest.mark.parametrize("kind", KINDS)
def test_base_is_as_it_was_when_the_adapter_is_taken_off(base, kind) -> None:
    before = {name: tensor.clone() for name, tensor in base.model.state_dict().items()}
    adapter = FederatedAdapter(base, dataclasses.replace(SETTINGS, adapter=kind))
    adapter.write(random_update(adapter, 1, seed=0))
    adapter.remove()
    after = base.model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert not any(parameter.requires_grad for parameter in base.model.parameters())


@pytest.mark.parametrize(
    ("kind", "first", "second"),
    [
        ("ffa", "B", "B"),
        ("fedit", "AB", "AB"),
        ("product", "AB", "AB"),
        ("alternating", "B", "A"),
        ("core", "R", "R"),
        ("fedsa", "A", "A"),
    ],
)
def test_what_is_shared_in_each_round(make, kind, first, second) -> None:
    adapter = make(kind)
    sizes = {"A": 4 * 32 * 2 + 4 * 64, "B": 4 * (32 + 16 + 32), "R": 3 * 16}
    for round_number, factors in ((1, first), (2, second)):
        manifest = adapter.manifest("run", round_number)
        assert manifest.size == 2 * sum(sizes[factor] for factor in factors)
        adapter.use_round(round_number)
        trained = {name for name, value in adapter.model.named_parameters() if value.requires_grad}
        assert trained == {*adapter.trained(round_number)}
        assert trained >= {*manifest.names}
    assert len(adapter.private()) == (6 if kind == "fedsa" else 0)
    assert not set(adapter.private()) & set(adapter.all_shared())


@pytest.mark.parametrize("kind", ["ffa", "alternating", "core"])
def test_mean_of_updates_is_the_mean_of_the_products(make, kind) -> None:
    adapter = make(kind)
    for round_number in (1, 2):
        current = adapter.read(adapter.all_shared())
        # In the second round A is trained over a B that is no longer zero.
        current |= {
            name: random_update(adapter, 1, seed=9).get(name, value) for name, value in current.items()
        }
        updates = {f"bank-{seed}": random_update(adapter, round_number, seed) for seed in range(3)}
        manifest = adapter.manifest("run", round_number)
        combined = products(adapter, combine(adapter, manifest, current, updates))
        each = [
            products(adapter, {**current, **{name: current[name] + update[name] for name in update}})
            for update in updates.values()
        ]
        for layer, product in combined.items():
            np.testing.assert_allclose(product, np.mean([one[layer] for one in each], axis=0), atol=1e-6)


def test_averaging_a_and_b_apart_is_not_exact(make) -> None:
    adapter = make("fedit")
    current = adapter.read(adapter.all_shared())
    updates = {f"bank-{seed}": random_update(adapter, 1, seed) for seed in range(3)}
    combined = products(adapter, combine(adapter, adapter.manifest("run", 1), current, updates))
    each = [
        products(adapter, {name: current[name] + update[name] for name in update})
        for update in updates.values()
    ]
    layer = next(iter(combined))
    assert np.abs(combined[layer] - np.mean([one[layer] for one in each], axis=0)).max() > 0.05


def test_product_of_one_bank_comes_back_exactly_and_of_many_as_the_nearest_of_the_rank() -> None:
    random = np.random.default_rng(0)
    ups = [random.normal(size=(9, 3)) for _ in range(4)]
    downs = [random.normal(size=(3, 7)) for _ in range(4)]
    down, up = nearest_of_rank(ups[:1], downs[:1], 3)
    np.testing.assert_allclose(up @ down, ups[0] @ downs[0], atol=1e-5)
    down, up = nearest_of_rank(ups, downs, 3)
    mean = np.mean([u @ d for u, d in zip(ups, downs, strict=True)], axis=0)
    left, values, right = np.linalg.svd(mean)
    np.testing.assert_allclose(up @ down, (left[:, :3] * values[:3]) @ right[:3], atol=1e-5)
    down, up = nearest_of_rank(ups, downs, 7)
    np.testing.assert_allclose(up @ down, mean, atol=1e-5)


def test_products_are_combined_layer_by_layer(make) -> None:
    adapter = make("product")
    current = adapter.read(adapter.all_shared())
    update = random_update(adapter, 1, seed=5)
    combined = products(adapter, combine(adapter, adapter.manifest("run", 1), current, {"one": update}))
    expected = products(adapter, {name: current[name] + update[name] for name in update})
    for layer, product in expected.items():
        np.testing.assert_allclose(combined[layer], product, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_expert_folder_answers_as_the_trained_model_did(make, base, tmp_path, kind) -> None:
    adapter = make(kind)
    adapter.write({**random_update(adapter, 1, seed=1), **random_update(adapter, 2, seed=2)})
    private = {name: np.full_like(values, 0.2) for name, values in adapter.read(adapter.private()).items()}
    adapter.write(private)
    before = adapter.model(input_ids=IDS).logits.detach().clone()
    folder = write_expert(adapter, tmp_path / "expert", {"task": "sums", "base_revision": base.revision})
    assert sorted(path.name for path in folder.iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
        "expert.json",
    ]
    fresh = load_base(base.name, "none", device="cpu")
    read_expert(folder).check_fits(fresh)
    assert json.loads((folder / "expert.json").read_text())["task"] == "sums"
    plain = fresh.model(input_ids=IDS).logits
    loaded = PeftModel.from_pretrained(fresh.model, str(folder))(input_ids=IDS).logits
    assert not torch.allclose(loaded, plain, atol=1e-3)
    torch.testing.assert_close(loaded, before, atol=1e-5, rtol=1e-5)


def test_missing_target_names_the_layers_there_are(base) -> None:
    with pytest.raises(FinLoraError, match="has no layer c_attn; its linear layers are q_proj"):
        FederatedAdapter(base, dataclasses.replace(SETTINGS, targets=("c_attn",)))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"rounds": 0}, "rounds must be at least 1, got 0"),
        ({"epsilon": 0.0}, "epsilon must be above 0"),
        ({"epsilon": float("nan")}, "epsilon must be above 0"),
        ({"delta": 1.0}, "delta must lie between 0 and 1"),
        ({"proofs": True}, "switch secure aggregation on too"),
        ({"secure_aggregation": True, "combination": "median"}, "which secure aggregation hides"),
        ({"secure_aggregation": True, "adapter": "product"}, "choose ffa"),
        ({"adapter": "product", "combination": "krum"}, "combined by mean alone"),
    ],
)
def test_settings_that_make_no_run_are_refused(changes, sentence) -> None:
    with pytest.raises(FinLoraError, match=sentence):
        dataclasses.replace(SETTINGS, **changes)


def test_settings_read_back_equal_from_json() -> None:
    settings = dataclasses.replace(SETTINGS, epsilon=4.0)
    kind = type(settings)
    assert kind.from_json(settings.to_json()) == settings
    assert kind.from_json(SETTINGS.to_json()) == SETTINGS
    with pytest.raises(FinLoraError, match="has no field 'noise'"):
        kind.from_json('{"noise": 1}')
