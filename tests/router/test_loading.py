"""Folders to running mixtures, and folders that do not fit."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from finlora.experts.base_model import load_base
from finlora.experts.errors import FinLoraError
from finlora.moe.bank import ExpertBank
from finlora.moe.checkpoint import save_mixture
from finlora.moe.mixture import MixtureForCausalLM
from finlora.moe.peft_xlora import export_peft_xlora
from finlora.moe.routing import ConstantRouter
from finlora.router import XLoRARouter, XLoRASettings, from_peft_xlora, from_xlora_package, load_mixture


@pytest.fixture
def base(tmp_path, make_tiny_llama, tiny_tokenizer):
    """The tiny base, loaded from a folder."""
    make_tiny_llama(hidden_size=64, intermediate_size=128).save_pretrained(tmp_path / "base")
    tiny_tokenizer.save_pretrained(tmp_path / "base")
    return load_base(str(tmp_path / "base"), "none", device="cpu")


@pytest.fixture
def bank(base, make_expert, make_tiny_llama):
    """Two experts of that base."""
    folders = {
        name: make_expert(name, seed=seed, model=make_tiny_llama(hidden_size=64, intermediate_size=128))
        for seed, name in enumerate("ab")
    }
    return ExpertBank.from_folders(folders, base)


@pytest.fixture
def mixture(base, bank):
    """Their X-LoRA mixture."""
    torch.manual_seed(0)
    sizes = {"d_model": 64, "module_count": bank.module_count, "expert_count": 2}
    return MixtureForCausalLM.build(base, bank, XLoRARouter(XLoRASettings(depth=2, width=16), **sizes))


@pytest.fixture
def folder(mixture, tmp_path):
    """Where that mixture was saved."""
    return save_mixture(mixture, tmp_path / "mixture")


@pytest.fixture
def prompts() -> torch.Tensor:
    """Two prompts of seven tokens."""
    return torch.randint(3, 259, (2, 7), generator=torch.Generator().manual_seed(0))


def _edit(file, **changes) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_loaded_mixture_computes_the_same(folder, mixture, prompts) -> None:
    loaded = load_mixture(folder, device="cpu")
    assert not loaded.training
    with torch.no_grad():
        torch.testing.assert_close(loaded(prompts).logits, mixture(prompts).logits, rtol=0, atol=0)


def test_constant_router_survives_the_round_trip(base, bank, tmp_path, prompts) -> None:
    mixture = MixtureForCausalLM.build(base, bank, ConstantRouter([0.25, 0.75]))
    loaded = load_mixture(save_mixture(mixture, tmp_path / "constant"), base=base)
    with torch.no_grad():
        torch.testing.assert_close(loaded(prompts).logits, mixture(prompts).logits, rtol=0, atol=0)


def test_folder_may_move_with_its_experts(folder, tmp_path, base) -> None:
    (tmp_path / "elsewhere").mkdir()
    for name in ("experts", "mixture"):
        (tmp_path / name).rename(tmp_path / "elsewhere" / name)
    assert load_mixture(tmp_path / "elsewhere" / "mixture", base=base).bank.expert_names == ("a", "b")


def test_quantization_can_be_chosen(folder) -> None:
    assert load_mixture(folder, device="cpu").origin.quantization == "none"
    assert load_mixture(folder, "nf4", device="cpu").origin.quantization == "nf4"


def test_loaded_base_is_shared(folder, base) -> None:
    assert load_mixture(folder, base=base).base is base.model
    with pytest.raises(FinLoraError, match="loaded with quantization none, asked for was nf4"):
        load_mixture(folder, "nf4", base=base)


def test_changed_base_is_refused_unless_named(folder, base, tmp_path, make_tiny_llama) -> None:
    make_tiny_llama(seed=1, hidden_size=64, intermediate_size=128).save_pretrained(tmp_path / "base")
    with pytest.raises(FinLoraError, match=r"was saved on .* of revision"):
        load_mixture(folder, device="cpu")
    assert load_mixture(folder, base=str(tmp_path / "base"), device="cpu")


def test_unknown_router_is_refused(folder, base) -> None:
    _edit(folder / "mixture.json", router={"type": "oracle", "settings": {}})
    with pytest.raises(FinLoraError, match="a router of type oracle; known are xlora, constant"):
        load_mixture(folder, base=base)


def test_router_of_another_size_is_refused(folder, base) -> None:
    save_file({"linears.0.weight": torch.zeros(16, 32)}, folder / "router.safetensors")
    with pytest.raises(FinLoraError, match=r"linears\.0\.bias has shape None, needed is \(16,\)"):
        load_mixture(folder, base=base)


def test_missing_expert_is_refused(folder, base, tmp_path) -> None:
    (tmp_path / "experts" / "b").rename(tmp_path / "experts" / "gone")
    with pytest.raises(FinLoraError, match="No expert at"):
        load_mixture(folder, base=base)


def test_peft_folder_on_a_quantized_base(mixture, base, tmp_path, prompts) -> None:
    export = export_peft_xlora(mixture, tmp_path / "export")
    plain = from_peft_xlora(export, device="cpu")
    assert plain.origin.name == base.name
    with torch.no_grad():
        torch.testing.assert_close(plain(prompts).logits, mixture(prompts).logits)
    assert from_peft_xlora(export, quantization="int8", device="cpu").origin.quantization == "int8"


def test_peft_folder_without_a_base_name(mixture, base, tmp_path) -> None:
    export = export_peft_xlora(mixture, tmp_path / "export")
    _edit(export / "adapter_config.json", base_model_name_or_path=None)
    with pytest.raises(FinLoraError, match="does not name its base"):
        from_peft_xlora(export)
    assert from_peft_xlora(export, base=base).router.settings.width == 16


def test_xlora_package_computes_the_same(mixture, base, tmp_path, prompts) -> None:
    package = tmp_path / "package"
    package.mkdir()
    config = {
        "adapters": [str(source.folder) for source in mixture.bank.sources],
        "xlora_depth": 2,
        "xlora_size": 16,
        "layerwise_scalings": True,
        "enable_relu_and_dropout": True,
    }
    (package / "xlora_config.json").write_text(json.dumps(config))
    names = {"linears.0": "inner.0", "linears.1": "last"}
    weights = mixture.router.state_dict()
    save_file(
        {
            f"{names[key.rpartition('.')[0]]}.{key.rpartition('.')[2]}": value
            for key, value in weights.items()
        },
        package / "xlora_classifier.safetensors",
    )
    loaded = from_xlora_package(package, base=replace(base))
    with torch.no_grad():
        torch.testing.assert_close(loaded(prompts).logits, mixture(prompts).logits, rtol=0, atol=0)
