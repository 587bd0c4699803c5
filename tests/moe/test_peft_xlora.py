"""PEFT X-LoRA folders that cannot be used, and mixtures that PEFT cannot express."""

import json

import pytest
import torch
from peft import XLoraConfig
from safetensors.torch import load_file, save_file

from finlora.experts.errors import FinLoraError
from finlora.moe.bank import ExpertBank
from finlora.moe.mixture import MixtureForCausalLM
from finlora.moe.peft_xlora import export_peft_xlora, read_peft_xlora
from finlora.moe.routing import ConstantRouter


@pytest.fixture
def folders(make_expert):
    """Two experts."""
    return {name: make_expert(name, seed=seed) for seed, name in enumerate(("first", "second"))}


@pytest.fixture
def export(tmp_path, make_base, folders, make_router):
    """A maker of exported mixtures; keywords are settings of the router."""

    def make(**settings):
        base = make_base()
        bank = ExpertBank.from_folders(folders, base)
        mixture = MixtureForCausalLM.build(base, bank, make_router(bank, **settings))
        return export_peft_xlora(mixture, tmp_path / "export")

    return make


def _edit(folder, **changes) -> None:
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_every_field_is_written_and_experts_are_numbered(export, tmp_path, folders) -> None:
    folder = export(depth=2, width=8, dropout=0.1)
    content = json.loads((folder / "adapter_config.json").read_text())
    assert set(content) >= set(XLoraConfig.__dataclass_fields__) - {"peft_version"}
    assert content["adapters"] == {str(i): str(tmp_path / "export" / str(i)) for i in range(2)}
    assert content["hidden_size"] == 32
    for index, source in enumerate(folders.values()):
        for name in ("adapter_config.json", "adapter_model.safetensors"):
            assert (folder / str(index) / name).read_bytes() == (source / name).read_bytes()
    layers = "base_model.internal_xlora_classifier.layers"
    assert set(load_file(folder / "adapter_model.safetensors")) == {
        f"{layers}.{number}.{kind}" for number in (0, 3) for kind in ("weight", "bias")
    }


def test_exported_folder_is_read_back(export) -> None:
    files = read_peft_xlora(export(depth=3, width=8, dropout=0.0, per_module=False, top_k=1, temperature=0.5))
    assert files.base_name == "tiny"
    assert list(files.experts) == ["0", "1"]
    assert files.router_settings["depth"] == 3
    assert files.router_settings["temperature"] == 0.5
    assert files.router_weights["linears.2.weight"].shape == (2, 8)


def test_temperature_goes_into_the_weights_when_shares_are_renormalized(export) -> None:
    folder = export(top_k=1, renormalize="sum", temperature=0.5, bias=False)
    content = json.loads((folder / "adapter_config.json").read_text())
    assert (content["enable_softmax"], content["enable_softmax_topk"]) == (False, True)
    tensors = load_file(folder / "adapter_model.safetensors")
    assert tensors["base_model.internal_xlora_classifier.layers.0.bias"].abs().max() == 0


def test_moved_folder_finds_its_experts(export, tmp_path) -> None:
    folder = export()
    folder.rename(tmp_path / "moved")
    assert read_peft_xlora(tmp_path / "moved").experts["1"] == tmp_path / "moved" / "1"


def test_pefts_order_of_keys_is_kept(export) -> None:
    folder = export()
    _edit(folder, adapters={"1": str(folder / "0"), "0": str(folder / "1")})
    # PEFT injects the expert at position 0 as "0", but routes key "1" first.
    assert list(read_peft_xlora(folder).experts.values()) == [folder / "1", folder / "0"]


def test_router_that_peft_lost_is_reported(export) -> None:
    folder = export()
    save_file({"other": torch.zeros(1)}, folder / "adapter_model.safetensors")
    with pytest.raises(FinLoraError, match="lacks layer 0 of the router, which some versions of PEFT lose"):
        read_peft_xlora(folder)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"peft_type": "LORA"}, "holds a LORA adapter of PEFT"),
        ({"scaling_pass_value": 0.5}, "trained with scaling_pass_value 0.5"),
        ({"use_trainable_adapters": True}, "trained together with its router"),
        ({"adapters": {}}, "names no experts"),
        ({"adapters": {"0": "nowhere", "x": "nowhere"}}, "expert x of .* is not at nowhere"),
    ],
    ids=["type", "scaling pass", "trainable", "none", "missing"],
)
def test_unusable_folder_is_refused(export, changes, reason) -> None:
    folder = export()
    _edit(folder, **changes)
    with pytest.raises(FinLoraError, match=reason):
        read_peft_xlora(folder)


def test_given_experts_replace_stored_paths(export, folders) -> None:
    folder = export()
    _edit(folder, adapters={}, use_trainable_adapters=True)
    assert read_peft_xlora(folder, adapters=folders).experts == folders


def test_existing_folder_is_not_overwritten(export) -> None:
    export()
    with pytest.raises(FinLoraError, match="exists already"):
        export()


@pytest.mark.parametrize(
    "settings", [{"null_expert": True}, {"relu": False, "depth": 2, "width": 8}], ids=str
)
def test_router_beyond_peft_is_refused(export, settings, tmp_path) -> None:
    with pytest.raises(FinLoraError, match="PEFT cannot express this xlora router"):
        export(**settings)
    assert not (tmp_path / "export").exists()


def test_constant_router_is_refused(make_base, folders, tmp_path) -> None:
    base = make_base()
    bank = ExpertBank.from_folders(folders, base)
    mixture = MixtureForCausalLM.build(base, bank, ConstantRouter.uniform(expert_count=2))
    with pytest.raises(FinLoraError, match="PEFT cannot express this constant router"):
        export_peft_xlora(mixture, tmp_path / "export")
