"""Merged adapters against their definitions, written out here with dense matrices, and against PEFT."""

import json
import math
import shutil

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file

from finlora.experts.adapter import read_expert
from finlora.experts.errors import FinLoraError
from finlora.moe.merging.merge import MERGES, merge_experts
from finlora.moe.merging.settings import MergeSettings

WEIGHTS = (0.7, 0.4, 0.9)
PREFIX = "base_model.model."


@pytest.fixture
def experts(varied_experts, make_tiny_llama):
    """Folders of three experts with different ranks, scales (one rsLoRA) and adapted layers."""
    return varied_experts(make_tiny_llama())


@pytest.fixture
def alike(make_expert):
    """Folders of three experts with one rank and other scales, two of them of the same layers."""
    return {
        "a": make_expert("a", seed=1, r=4, lora_alpha=8),
        "b": make_expert("b", seed=2, r=4, lora_alpha=12),
        "c": make_expert("c", seed=3, r=4, lora_alpha=4, target_modules=["q_proj", "gate_proj"]),
    }


def dense(folder) -> dict[str, torch.Tensor]:
    """Delta W of every layer, from the files alone."""
    config = json.loads((folder / "adapter_config.json").read_text())
    tensors = load_file(folder / "adapter_model.safetensors")
    result = {}
    for key, down in tensors.items():
        if key.endswith("lora_A.weight"):
            name = key.removeprefix(PREFIX).removesuffix(".lora_A.weight")
            alpha = config["alpha_pattern"].get(name, config["lora_alpha"])
            scale = alpha / (math.sqrt(len(down)) if config["use_rslora"] else len(down))
            result[name] = scale * tensors[key.replace("lora_A", "lora_B")] @ down
    return result


def merged(method, folders, out, **settings) -> dict[str, torch.Tensor]:
    return dense(merge_experts(method, folders, out, MergeSettings(**settings)))


def names_of(deltas) -> list[str]:
    return sorted({name for delta in deltas for name in delta})


def columns(deltas, name) -> list[tuple[float, torch.Tensor]]:
    return [(weight, delta[name]) for weight, delta in zip(WEIGHTS, deltas, strict=True) if name in delta]


def assert_equal(result, expected) -> None:
    assert sorted(result) == sorted(expected)
    for name, delta in expected.items():
        torch.testing.assert_close(result[name], delta, rtol=0, atol=1e-5)
    assert max(delta.abs().max() for delta in expected.values()) > 0.1


def ties_by_hand(deltas, keep_largest) -> dict[str, torch.Tensor]:
    """Entry by entry, in plain Python, over experts that were trimmed by `keep_largest`."""
    trimmed = [keep_largest(delta) for delta in deltas]
    result = {}
    for name in names_of(deltas):
        shape = next(delta[name].shape for delta in deltas if name in delta)
        flat = [(weight, delta.flatten().tolist()) for weight, delta in columns(trimmed, name)]
        entries = []
        for index in range(math.prod(shape)):
            values = [(weight, row[index]) for weight, row in flat]
            total = sum(weight * value for weight, value in values)
            agreeing = [(weight, value) for weight, value in values if value * total > 0]
            mass = sum(weight for weight, _ in agreeing)
            mean = sum(weight * value for weight, value in agreeing) / mass if agreeing else 0.0
            entries.append(sum(WEIGHTS) * mean)
        result[name] = torch.tensor(entries).reshape(shape)
    return result


def test_uniform_is_the_mean_of_delta_w(experts, tmp_path) -> None:
    deltas = [dense(folder) for folder in experts.values()]
    expected = {name: sum(delta[name] for delta in deltas if name in delta) / 3 for name in names_of(deltas)}
    assert_equal(merged("uniform", experts, tmp_path / "out"), expected)


def test_given_weights_are_used_as_given(experts, tmp_path) -> None:
    deltas = [dense(folder) for folder in experts.values()]
    expected = {name: sum(w * d for w, d in columns(deltas, name)) for name in names_of(deltas)}
    assert_equal(merged("uniform", experts, tmp_path / "out", weights=WEIGHTS), expected)


def test_linear_adds_a_and_b_apart_as_peft_does(alike, tmp_path, make_tiny_llama) -> None:
    model = PeftModel.from_pretrained(make_tiny_llama(), str(alike["a"]), adapter_name="a")
    for name in ("b", "c"):
        model.load_adapter(str(alike[name]), name)
    weights = [0.7, -0.4, 0.9]
    model.add_weighted_adapter(list("abc"), weights, "merged", combination_type="linear")
    result = merged("linear", alike, tmp_path / "out", weights=tuple(weights))
    expected = {}
    for name, module in model.base_model.model.named_modules():
        if hasattr(module, "get_delta_weight") and "merged" in module.lora_A:
            expected[name] = module.get_delta_weight("merged")
    assert_equal(result, expected)


def test_linear_is_not_the_sum_of_delta_w(alike, tmp_path) -> None:
    linear = merged("linear", alike, tmp_path / "linear")
    uniform = merged("uniform", alike, tmp_path / "uniform")
    name = "model.layers.0.self_attn.q_proj"
    assert (linear[name] - uniform[name]).abs().max() > 0.1
    alone = "model.layers.0.mlp.gate_proj"
    torch.testing.assert_close(linear[alone], uniform[alone], rtol=0, atol=1e-5)


@pytest.mark.parametrize("rank", [None, 3])
def test_svd_is_the_nearest_of_its_rank(experts, tmp_path, rank) -> None:
    whole = merged("uniform", experts, tmp_path / "whole", weights=WEIGHTS)
    folder = merge_experts("svd", experts, tmp_path / "out", MergeSettings(weights=WEIGHTS, rank=rank))
    tensors = load_file(folder / "adapter_model.safetensors")
    lost, norm = 0.0, 0.0
    for name, delta in dense(folder).items():
        values = torch.linalg.svdvals(whole[name].double())
        kept = len(tensors[f"{PREFIX}{name}.lora_A.weight"])
        assert kept <= (rank or 5)
        tail = values[kept:].norm()
        torch.testing.assert_close((whole[name] - delta).double().norm(), tail, rtol=0, atol=1e-5)
        lost, norm = lost + float(tail) ** 2, norm + float(values.norm()) ** 2
    truncation = read_expert(folder).metadata["truncation"]
    assert truncation["relative_error"] == pytest.approx(math.sqrt(lost / norm), abs=1e-5)
    assert truncation["relative_error"] > 0.05


def test_svd_of_the_full_rank_loses_nothing(experts, tmp_path) -> None:
    whole = merged("uniform", experts, tmp_path / "whole")
    assert_equal(merged("svd", experts, tmp_path / "out", rank=32), whole)
    metadata = read_expert(tmp_path / "out").metadata
    assert metadata["truncation"]["relative_error"] < 1e-12
    assert (
        metadata["ranks"] == {"smallest": 2 + 3, "largest": 2 + 5 + 3} or metadata["ranks"]["largest"] <= 32
    )


@pytest.mark.parametrize("density", [0.2, 1.0])
def test_ties_trims_elects_and_averages(experts, tmp_path, density) -> None:
    deltas = [dense(folder) for folder in experts.values()]

    def keep_largest(delta):
        everything = torch.cat([one.flatten() for one in delta.values()]).abs()
        limit = everything.topk(max(1, round(density * len(everything)))).values[-1]
        return {name: one.where(one.abs() >= limit, 0.0) for name, one in delta.items()}

    expected = ties_by_hand(deltas, keep_largest)
    result = merged("ties", experts, tmp_path / "out", weights=WEIGHTS, density=density)
    assert_equal(result, expected)


def test_dare_drops_and_rescales(experts, make_expert, tmp_path) -> None:
    deltas = {name: dense(folder) for name, folder in experts.items()}
    zero = make_expert("zero", seed=1)
    silence(zero)
    dropped = {
        name: merged("dare", {name: folder, "zero": zero}, tmp_path / name, weights=(1.0, 1.0), density=0.5)
        for name, folder in experts.items()
    }
    kept = 0
    entries = 0
    for name, delta in deltas.items():
        for layer, one in delta.items():
            mask = dropped[name][layer] != 0
            torch.testing.assert_close(dropped[name][layer], one * mask / 0.5, rtol=0, atol=1e-5)
            kept, entries = kept + int(mask.sum()), entries + mask.numel()
    assert abs(kept / entries - 0.5) < 5 * math.sqrt(0.25 / entries)
    together = merged("dare", experts, tmp_path / "out", weights=WEIGHTS, density=0.5)
    expected = {
        layer: sum(w * d for w, d in columns([dropped[name] for name in experts], layer))
        for layer in names_of(deltas.values())
    }
    assert_equal(together, expected)
    both = merged("dare_ties", experts, tmp_path / "both", weights=WEIGHTS, density=0.5)
    assert_equal(both, ties_by_hand([dropped[name] for name in experts], lambda delta: delta))


def silence(folder) -> None:
    """Make an expert of nothing."""
    file = folder / "adapter_model.safetensors"
    save_file({name: torch.zeros_like(tensor) for name, tensor in load_file(file).items()}, file)


def test_ties_of_opposites_elects_no_sign(alike, tmp_path) -> None:
    opposite = tmp_path / "opposite"
    shutil.copytree(alike["a"], opposite)
    tensors = load_file(alike["a"] / "adapter_model.safetensors")
    negated = {name: -tensor if "lora_B" in name else tensor for name, tensor in tensors.items()}
    save_file(negated, opposite / "adapter_model.safetensors")
    result = merged("ties", {"a": alike["a"], "opposite": opposite}, tmp_path / "out")
    assert all(not delta.any() for delta in result.values())


@pytest.mark.parametrize("method", ["ties", "dare"])
def test_dense_merge_cut_to_a_rank_reports_what_it_lost(experts, tmp_path, method) -> None:
    whole = merged(method, experts, tmp_path / "whole", density=0.5)
    assert read_expert(tmp_path / "whole").metadata["truncation"] is None
    cut = merged(method, experts, tmp_path / "cut", density=0.5, rank=4)
    lost = sum((whole[name] - cut[name]).norm() ** 2 for name in whole).sqrt()
    norm = sum(delta.norm() ** 2 for delta in whole.values()).sqrt()
    truncation = read_expert(tmp_path / "cut").metadata["truncation"]
    assert truncation["relative_error"] == pytest.approx(float(lost / norm), abs=1e-5)
    worst = {name: float((whole[name] - cut[name]).norm() / whole[name].norm()) for name in whole}
    assert truncation["largest_at"] == max(worst, key=worst.__getitem__)


@pytest.mark.parametrize("method", MERGES)
def test_peft_loads_the_folder_and_adds_exactly_that(
    alike, tmp_path, make_tiny_llama, prompts, method
) -> None:
    folder = merge_experts(method, alike, tmp_path / "out")
    model = make_tiny_llama()
    plain = model(prompts).logits
    for name, delta in dense(folder).items():
        model.get_submodule(name).weight.data += delta
    expected = model(prompts).logits
    loaded = PeftModel.from_pretrained(make_tiny_llama(), str(folder)).eval()
    torch.testing.assert_close(loaded(prompts).logits, expected, rtol=0, atol=1e-5)
    assert (expected - plain).abs().max() > 0.01


@pytest.mark.parametrize("method", MERGES)
def test_equal_commands_give_equal_bytes(alike, tmp_path, method) -> None:
    folders = [merge_experts(method, alike, tmp_path / name) for name in ("one", "two")]
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes()


@pytest.mark.parametrize("method", ["dare", "dare_ties"])
def test_another_seed_drops_others(alike, tmp_path, method) -> None:
    results = [merged(method, alike, tmp_path / str(seed), seed=seed) for seed in (0, 1)]
    assert any(not torch.equal(results[0][name], results[1][name]) for name in results[0])


def test_record_says_how_the_adapter_came_about(alike, tmp_path) -> None:
    folder = merge_experts("dare", alike, tmp_path / "out", MergeSettings(weights=WEIGHTS, seed=7, rank=4))
    metadata = read_expert(folder).metadata
    assert metadata["merge"]["method"] == "dare"
    assert metadata["weights"] == dict(zip("abc", WEIGHTS, strict=True))
    assert metadata["seed"] == 7
    assert [source["name"] for source in metadata["sources"]] == ["a", "b", "c"]
    assert len({source["weights_sha256"] for source in metadata["sources"]}) == 3
    assert sorted(path.name for path in folder.iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
        "expert.json",
    ]


def edit_json(file, **changes) -> None:
    content = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps(content | changes))


def spoil(folder) -> None:
    file = folder / "adapter_model.safetensors"
    tensors = {name: tensor.clone() for name, tensor in load_file(file).items()}
    next(iter(tensors.values()))[0, 0] = math.nan
    save_file(tensors, file)


@pytest.mark.parametrize(
    ("method", "settings", "reason"),
    [
        ("mean", {}, r"no merge 'mean'; choose one of uniform"),
        ("uniform", {"weights": (1.0,)}, "1 weights were given for 3 experts"),
        ("uniform", {"rank": 4}, "uniform has no rank to choose"),
        ("ties", {"weights": (1.0, -1.0, 1.0)}, "must not be negative; got -1.0"),
    ],
)
def test_what_does_not_fit_is_refused(alike, tmp_path, method, settings, reason) -> None:
    with pytest.raises(FinLoraError, match=reason):
        merge_experts(method, alike, tmp_path / "out", MergeSettings(**settings))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"weights": (0.0, 0.0)}, "All weights are 0"),
        ({"weights": (1.0, math.nan)}, "finite"),
        ({"density": 0.0}, "density is a share"),
        ({"rank": 0}, "rank must be at least 1"),
    ],
)
def test_settings_without_meaning_are_refused(settings, reason) -> None:
    with pytest.raises(FinLoraError, match=reason):
        MergeSettings(**settings)


def test_linear_refuses_other_ranks(experts, tmp_path) -> None:
    with pytest.raises(FinLoraError, match=r"the ranks are a 2, .*c 3; use uniform or svd"):
        merge_experts("linear", experts, tmp_path / "out")


def test_experts_that_cannot_be_merged_are_refused(alike, make_expert, make_tiny_llama, tmp_path) -> None:
    out = tmp_path / "out"
    with pytest.raises(FinLoraError, match="two or more experts; given: 1"):
        merge_experts("uniform", {"a": alike["a"]}, out)
    dora = make_expert("dora", seed=4, use_dora=True)
    with pytest.raises(FinLoraError, match="since DoRA rescales the base weight"):
        merge_experts("uniform", alike | {"dora": dora}, out)
    wide = make_expert("wide", seed=4, model=make_tiny_llama(hidden_size=64))
    with pytest.raises(FinLoraError, match=r"different bases: the layer .* has \(32, 64\) weights"):
        merge_experts("uniform", alike | {"wide": wide}, out)
    spoil(alike["c"])
    with pytest.raises(FinLoraError, match="numbers that are not finite"):
        merge_experts("uniform", alike, out)


def test_experts_of_other_bases_are_refused(alike, tmp_path) -> None:
    edit_json(alike["a"] / "adapter_config.json", base_model_name_or_path="somebody/llama")
    edit_json(alike["b"] / "adapter_config.json", base_model_name_or_path="other/Llama")
    merge_experts("uniform", alike, tmp_path / "owners")
    edit_json(alike["b"] / "adapter_config.json", base_model_name_or_path="other/qwen")
    with pytest.raises(FinLoraError, match=r"somebody/llama .* and other/qwen"):
        merge_experts("uniform", alike, tmp_path / "names")
    edit_json(alike["a"] / "expert.json", base_revision="one")
    edit_json(alike["b"] / "expert.json", base_revision="one")
    merge_experts("uniform", alike, tmp_path / "revisions")
    edit_json(alike["b"] / "expert.json", base_revision="two")
    with pytest.raises(FinLoraError, match=r"\(one\) and other/qwen \(two\)"):
        merge_experts("uniform", alike, tmp_path / "other")


def test_finished_folder_is_not_overwritten(alike, tmp_path) -> None:
    folder = merge_experts("uniform", alike, tmp_path / "out")
    before = (folder / "adapter_model.safetensors").read_bytes()
    with pytest.raises(FinLoraError, match="already holds a finished result"):
        merge_experts("svd", alike, folder)
    assert (folder / "adapter_model.safetensors").read_bytes() == before
