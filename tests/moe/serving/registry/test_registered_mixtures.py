"""Mixtures are registered with their experts, share equal ones, and are refused if they cannot be served."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from finlora.experts.errors import FinLoraError
from finlora.moe.checkpoint import save_mixture
from finlora.moe.mode import Mode
from finlora.moe.serving.registry import ExpertKey, ExpertRegistry
from finlora.moe.serving.registry_changes import NameTakenError
from finlora.moe.serving.requests import QuarantinedModelError, UnknownModelError
from finlora.router import load_mixture

from .conftest import make_mixture, stored_folders


@pytest.fixture
def folder(saved_mixture, written, tmp_path) -> Path:
    """A copy of the mixture and its experts that a test may damage."""
    for name in ("e1", "e3"):
        shutil.copytree(written[name], tmp_path / "source" / name)
    return shutil.copytree(saved_mixture, tmp_path / "source" / "mixture")


def change(folder: Path, **values: object) -> None:
    """Change fields of `mixture.json`."""
    file = folder / "mixture.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def test_a_registered_mixture_answers_as_the_saved_one(registry, folder, small_base):
    key = registry.add_mixture("both", folder)
    expected = load_mixture(folder, base=small_base)
    shutil.rmtree(folder.parent)
    found = registry.mixture("both")
    assert found.key == key == ("both", 1)
    assert found.experts == {"e1": ("both/e1", 1), "e3": ("both/e3", 1)}
    assert registry.mixture_names() == ["both"]
    assert registry.names() == []
    loaded = load_mixture(registry.mixture_folder("both"), base=small_base)
    prompt = torch.arange(3, 20)[None]
    assert torch.equal(loaded(prompt).logits, expected(prompt).logits)


def test_equal_experts_are_registered_once(registry, folder, written):
    registry.add("e3", written["e3"])
    registry.add("other", written["e1"])
    registry.add_mixture("first", folder)
    registry.add_mixture("second", folder)
    assert registry.mixture("first").experts == {"e1": ("other", 1), "e3": ("e3", 1)}
    assert registry.mixture("second").experts == registry.mixture("first").experts
    assert stored_folders(registry) == 4


def test_a_mixture_keeps_its_experts(registry, folder, written):
    registry.add("e3", written["e3"])
    registry.add_mixture("both", folder)
    registry.add("e3", written["e4"], replace=True)
    registry.remove("e3")
    kept = registry.mixture("both").experts["e3"]
    assert kept == ("e3", 1)
    assert registry.matrices(kept)
    assert registry.versions("e3") == [1]
    registry.remove_mixture("both")
    assert stored_folders(registry) == 0
    with pytest.raises(UnknownModelError):
        registry.mixture("both")


def test_a_mixture_is_replaced(registry, folder, written, small_base, tmp_path):
    registry.add_mixture("both", folder)
    before = registry.mixture("both")
    registry.hold(before.key)
    registry.hold(before.experts["e1"])
    saved = save_mixture(make_mixture(written, small_base, ["e3", "e5"]), tmp_path / "new")
    assert registry.add_mixture("both", saved, replace=True) == ("both", 2)
    # e3 has the same files as before, so it is the version that is there already.
    assert registry.mixture("both").experts == {"e3": ("both/e3", 1), "e5": ("both/e5", 2)}
    assert (before.folder / "router.safetensors").is_file()
    assert registry.matrices(before.experts["e1"])
    registry.release(before.key)
    registry.release(before.experts["e1"])
    assert stored_folders(registry) == 3
    assert not before.folder.exists()


def test_a_mixture_outlives_a_restart(tmp_path, small_base, folder):
    with ExpertRegistry(tmp_path / "registry", small_base) as registry:
        registry.add_mixture("both", folder)
    with ExpertRegistry(tmp_path / "registry", small_base) as registry:
        assert registry.matrices(registry.mixture("both").experts["e1"])


def test_a_mixture_of_a_quarantined_expert_is_refused(registry, folder):
    registry.add_mixture("both", folder)
    registry.quarantine(ExpertKey("both/e3", 1), "its answer was not a finite number")
    with pytest.raises(QuarantinedModelError, match="both/e3@1"):
        registry.find("both")


def test_names_are_for_one_kind(registry, folder, written):
    registry.add("taken", written["e0"])
    registry.add_mixture("both", folder)
    for add, source in ((registry.add, written["e0"]), (registry.add_mixture, folder)):
        for name in ("taken", "both"):
            with pytest.raises(NameTakenError):
                add(name, source)
    with pytest.raises(NameTakenError, match="a mixture named both"):
        registry.add("both", written["e0"], replace=True)
    with pytest.raises(NameTakenError, match="an expert named taken"):
        registry.add_mixture("taken", folder, replace=True)
    for name in ("both/e1", "both/e1@1", "taken@1"):
        with pytest.raises(UnknownModelError):
            registry.find(name)
    with pytest.raises(UnknownModelError, match="near names are both"):
        registry.find("Both")


def entries(folder: Path, **changes: object) -> list[dict]:
    """The experts of `mixture.json`, the first one changed."""
    first, *others = json.loads((folder / "mixture.json").read_text())["experts"]
    return [first | changes, *others]


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"mode": "previous"}, "carries scalings"),
        ({"mode": "prompt"}, "carries scalings"),
        ({"mode": "sideways"}, "must be one of"),
        ({"mode": []}, "must be one of"),
        ({"format_version": 99}, "reads version 1"),
        ({"base": {"name": "tiny", "revision": "revision-9", "quantization": "none"}}, "revision-9"),
        ({"base": []}, "missing"),
        ({"experts": []}, "needs experts"),
        ({"experts": "text"}, "missing"),
        ({"experts": [1, 2]}, "missing"),
        ({"modules": ["model.layers.0.self_attn.q_proj"]}, "adapted linear layers"),
        ({"router": {"type": "unknown", "settings": {}}}, "router of type unknown"),
        ({"router": {"type": "xlora", "settings": {"width": 17, "depth": 2}}}, "does not fit"),
        ({"router": {"type": "xlora", "settings": {"depth": 10**12}}}, "depth = 1000000000000"),
        ({"router": {"type": "xlora", "settings": {"depth": "many"}}}, "wrong kind"),
        (
            {"router": {"type": "xlora", "settings": {"depth": 40_000, "width": 60_000}}},
            "not a size of its weights",
        ),
        ({"router": {"type": "xlora", "settings": {"depth": 100, "width": 2000}}}, "does not fit"),
        ({"router": {"type": "constant", "settings": {"weights": [[1.0]]}}}, "do not fit"),
        ({"router": {"type": "layer_gates", "settings": {}}}, ""),
        ({"router": []}, "missing"),
    ],
    ids=lambda value: repr(value)[:50],
)
def test_mixtures_that_are_refused(registry, folder, values, reason):
    change(folder, **values)
    refuse(registry, folder, reason)


def refuse(registry: ExpertRegistry, folder: Path, reason: str, **options: object) -> None:
    """Check that a mixture is refused without a trace."""
    with pytest.raises(FinLoraError, match=reason):
        registry.add_mixture("both", folder, **options)
    assert registry.mixture_names() == []
    assert stored_folders(registry) == 0


@pytest.mark.parametrize("name", ["../e1", "a/b", "", "base", "x" * 200])
def test_names_of_a_mixture_that_are_refused(registry, folder, name):
    change(folder, experts=entries(folder, name=name))
    refuse(registry, folder, "name")


def test_experts_of_a_mixture_that_are_refused(registry, folder, tmp_path):
    change(folder, experts=entries(folder, weights_sha256="0" * 64))
    refuse(registry, folder, "weights of expert e1 changed")
    for path in ("../missing", "/etc", "a\0b", 7):
        change(folder, experts=entries(folder, path=path))
        refuse(registry, folder, "")
    change(folder, experts=entries(folder, path="../e1"))
    refuse(registry, folder, "lies outside", within=folder)
    file = folder.parent / "e1" / "adapter_model.safetensors"
    tensors = load_file(file)
    next(iter(tensors.values())).fill_(float("nan"))
    save_file(tensors, file)
    change(folder, experts=entries(folder, path="../e1"))
    refuse(registry, folder, "not finite numbers")


def test_routers_that_are_refused(registry, folder):
    file = folder / "router.safetensors"
    tensors = load_file(file)
    save_file(tensors | {"linears.0.bias": torch.full((16,), float("nan"))}, file)
    refuse(registry, folder, "values in linears")
    file.write_bytes(b"\x80\x04K\x01.")
    refuse(registry, folder, "truncated")
    file.unlink()
    refuse(registry, folder, "router")
    with (folder / "mixture.json").open("ab") as stream:
        stream.truncate(10 * 2**30)
    refuse(registry, folder, "10,737,418,240 bytes")


def test_a_mixture_that_carries_scalings_is_refused(registry, written, small_base, tmp_path):
    mixture = make_mixture(written, small_base, ["e1", "e3"], mode=Mode(name="previous"))
    refuse(registry, save_mixture(mixture, tmp_path / "previous"), "mode previous, which carries scalings")
