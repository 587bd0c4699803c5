"""Mixture folders: what is written, and what is refused when it is read."""

import json

import pytest
import torch

from finlora.experts.errors import FinLoraError
from finlora.moe import checkpoint
from finlora.moe.bank import ExpertBank
from finlora.moe.checkpoint import read_mixture, save_mixture
from finlora.moe.mixture import MixtureForCausalLM


@pytest.fixture
def mixture(make_base, make_mixture) -> MixtureForCausalLM:
    """An X-LoRA mixture of three varied experts."""
    return make_mixture(make_base(), depth=2, width=8, top_k=2)


@pytest.fixture
def folder(mixture, tmp_path):
    """Where that mixture was saved."""
    return save_mixture(mixture, tmp_path / "runs" / "mixture")


def test_description_names_everything_explicitly(folder, mixture) -> None:
    content = json.loads((folder / "mixture.json").read_text())
    assert content["base"] == {"name": "tiny", "revision": "revision-1", "quantization": "none"}
    assert content["mode"] == "exact"
    assert [expert["path"] for expert in content["experts"]] == [f"../../experts/{name}" for name in "abc"]
    assert content["modules"] == list(mixture.bank.module_names)
    assert content["router"]["type"] == "xlora"
    assert set(content["router"]["settings"]) == {
        *("depth", "width", "dropout", "context_width", "per_module", "softmax", "temperature", "top_k"),
        *("renormalize", "null_expert", "scale", "relu", "bias"),
    }


def test_what_is_read_is_what_was_saved(folder, mixture) -> None:
    files = read_mixture(folder)
    assert (files.base_name, files.base_revision, files.quantization) == ("tiny", "revision-1", "none")
    assert list(files.experts) == ["a", "b", "c"]
    assert all((path / "adapter_config.json").is_file() for path in files.experts.values())
    assert files.router_settings == mixture.router.settings_as_dict()
    assert files.router_weights.keys() == mixture.router.state_dict().keys()
    for name, tensor in mixture.router.state_dict().items():
        assert torch.equal(files.router_weights[name], tensor)
    files.check_bank(mixture.bank)


def test_saved_mixture_is_not_overwritten(folder, mixture) -> None:
    before = (folder / "router.safetensors").read_bytes()
    with pytest.raises(FinLoraError, match="already holds a mixture"):
        save_mixture(mixture, folder)
    assert (folder / "router.safetensors").read_bytes() == before


def test_interrupted_save_leaves_no_mixture_behind(mixture, tmp_path, monkeypatch) -> None:
    def full_disk(*_) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full_disk)
    with pytest.raises(OSError, match="No space left"):
        save_mixture(mixture, tmp_path / "new")
    assert list((tmp_path / "new").iterdir()) == []
    monkeypatch.undo()
    save_mixture(mixture, tmp_path / "new")


def test_base_folder_is_named_absolutely(mixture, tmp_path, monkeypatch) -> None:
    (tmp_path / "tiny").mkdir()
    monkeypatch.chdir(tmp_path)
    assert read_mixture(save_mixture(mixture, "saved")).base_name == str((tmp_path / "tiny").resolve())


def test_truncated_router_is_refused(folder) -> None:
    file = folder / "router.safetensors"
    file.write_bytes(file.read_bytes()[:-7])
    with pytest.raises(FinLoraError, match="truncated or no safetensors file"):
        read_mixture(folder)


def test_missing_files_are_named(folder) -> None:
    (folder / "router.safetensors").unlink()
    with pytest.raises(FinLoraError, match=r"has no router\.safetensors"):
        read_mixture(folder)
    with pytest.raises(FinLoraError, match=r"has no mixture\.json, so it is not a folder of that format"):
        read_mixture(folder.parent)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "is not valid JSON"),
        ("[]", "must hold a JSON object"),
        ('{"format": "finlora-mixture", "format_version": 9}', "format version is 9"),
        (
            '{"format": "finlora-mixture", "format_version": 1, "mode": "exact"}',
            "is damaged: 'base' is missing",
        ),
    ],
    ids=["syntax", "list", "version", "fields"],
)
def test_unusable_description_is_refused(folder, text, reason) -> None:
    (folder / "mixture.json").write_text(text)
    with pytest.raises(FinLoraError, match=reason):
        read_mixture(folder)


def test_changed_experts_are_refused(folder, make_base, make_expert, varied_experts) -> None:
    files, base = read_mixture(folder), make_base()
    files.check_bank(ExpertBank.from_folders(varied_experts(base.model), base))
    make_expert("b", seed=99, r=5, lora_alpha=5, target_modules=["v_proj", "down_proj"])
    with pytest.raises(FinLoraError, match=r"The weights of expert b .* changed since"):
        files.check_bank(ExpertBank.from_folders(files.experts, base))


def test_other_modules_than_saved_are_refused(folder, mixture) -> None:
    files = read_mixture(folder)
    mixture.bank.module_names = mixture.bank.module_names[:-1]
    with pytest.raises(
        FinLoraError, match="was saved for 14 adapted linear layers, its experts now adapt 13"
    ):
        files.check_bank(mixture.bank)
