"""Reading an expert's folder, and what is said about folders that hold none."""

import json

import pytest
import torch
from peft import IA3Config, LoraConfig, get_peft_model

from finlora.experts.adapter import name_experts, read_expert
from finlora.experts.base_model import Base
from finlora.experts.errors import FinLoraError


def save_adapter(model, folder, **changes) -> None:
    config = LoraConfig(r=4, target_modules=["q_proj", "down_proj"], task_type="CAUSAL_LM", **changes)
    get_peft_model(model, config).save_pretrained(folder)


@pytest.fixture
def folder(tmp_path, make_tiny_llama):
    save_adapter(make_tiny_llama(), tmp_path / "expert")
    return tmp_path / "expert"


@pytest.fixture
def make_base(make_tiny_llama, tiny_tokenizer):
    return lambda **changes: Base(make_tiny_llama(**changes), tiny_tokenizer, "tiny", "revision-1", "none")


def test_tensors_config_and_metadata_are_read(folder) -> None:
    (folder / "expert.json").write_text('{"task": "fpb"}')
    expert = read_expert(folder)
    assert expert.config.r == 4
    assert expert.task == "fpb"
    assert expert.tensors["base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"].shape == (4, 32)


def test_adapter_of_others_has_no_metadata(folder) -> None:
    expert = read_expert(folder)
    assert expert.metadata is None
    assert expert.task is None


@pytest.mark.parametrize("use_dora", [True, False])
def test_dora_is_recognized(tmp_path, make_tiny_llama, use_dora) -> None:
    save_adapter(make_tiny_llama(), tmp_path, use_dora=use_dora)
    assert read_expert(tmp_path).is_dora is use_dora


def test_expert_fits_the_base_it_was_trained_on(folder, make_base) -> None:
    (folder / "expert.json").write_text(json.dumps({"base": "tiny", "base_revision": "revision-1"}))
    read_expert(folder).check_fits(make_base())


def test_other_width_is_another_base(folder, make_base) -> None:
    with pytest.raises(
        FinLoraError, match=r"another base: its layer .* has out_features 32, that of tiny has 64"
    ):
        read_expert(folder).check_fits(make_base(hidden_size=64))


def test_missing_layer_is_named(folder, make_base) -> None:
    with pytest.raises(
        FinLoraError, match=r"adapts the layer model\.layers\.1\..*, which the base tiny does not have"
    ):
        read_expert(folder).check_fits(make_base(num_hidden_layers=1))


def test_other_weights_are_another_base(folder, make_base) -> None:
    (folder / "expert.json").write_text(json.dumps({"base": "embedded", "base_revision": "revision-0"}))
    with pytest.raises(
        FinLoraError, match=r"was trained on embedded \(revision-0\), not on tiny \(revision-1\)"
    ):
        read_expert(folder).check_fits(make_base())


def test_no_folder(tmp_path) -> None:
    with pytest.raises(FinLoraError, match="it is not a folder"):
        read_expert(tmp_path / "missing")


def test_no_config(folder) -> None:
    (folder / "adapter_config.json").unlink()
    with pytest.raises(FinLoraError, match=r"has no adapter_config\.json"):
        read_expert(folder)


def test_no_weights(folder) -> None:
    (folder / "adapter_model.safetensors").unlink()
    with pytest.raises(FinLoraError, match=r"has no adapter_model\.safetensors"):
        read_expert(folder)


def test_pickled_weights_are_not_read(folder) -> None:
    (folder / "adapter_model.safetensors").unlink()
    torch.save({}, folder / "adapter_model.bin")
    with pytest.raises(FinLoraError, match="only safetensors are read"):
        read_expert(folder)


@pytest.mark.parametrize("kept", [0, 5, 100, 2000])
def test_truncated_weights(folder, kept) -> None:
    file = folder / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(FinLoraError, match="truncated or no safetensors file"):
        read_expert(folder)


def test_other_kinds_of_adapter_are_refused(tmp_path, make_tiny_llama) -> None:
    config = IA3Config(target_modules=["k_proj"], feedforward_modules=[], task_type="CAUSAL_LM")
    get_peft_model(make_tiny_llama(), config).save_pretrained(tmp_path)
    with pytest.raises(FinLoraError, match="holds a IA3 adapter; only LORA"):
        read_expert(tmp_path)


@pytest.mark.parametrize("content", ["{", "[]"])
def test_damaged_json_is_named(folder, content) -> None:
    (folder / "expert.json").write_text(content)
    with pytest.raises(FinLoraError, match=r"expert\.json"):
        read_expert(folder)


def test_experts_are_named_by_task_or_folder(make_expert) -> None:
    first, second = make_expert("first", seed=1), make_expert("second", seed=2)
    (second / "expert.json").write_text('{"task": "finer"}')
    assert name_experts([first, second]) == {"first": first, "finer": second}
    (first / "expert.json").write_text('{"task": "finer"}')
    with pytest.raises(FinLoraError, match=r"first and .*second are both experts named finer"):
        name_experts([first, second])
