"""What is registered comes back as it was, in versions, also after a restart."""

import json
from pathlib import Path

import pytest
import torch

from finlora.experts.adapter import read_expert
from finlora.experts.errors import FinLoraError
from finlora.moe.bank import read_matrices
from finlora.moe.serving.registry import ExpertKey, ExpertRegistry
from finlora.moe.serving.registry_changes import NameTakenError
from finlora.moe.serving.requests import QuarantinedModelError, UnknownModelError

from .conftest import stored_folders


def test_matrices_are_those_that_a_bank_reads(registry, written):
    for name, folder in written.items():
        key = registry.add(name, folder)
        expected = read_matrices(name, read_expert(folder))
        found = registry.matrices(key)
        assert set(found) == set(expected)
        for module, (down, up) in expected.items():
            assert torch.equal(found[module][0], down)
            assert torch.equal(found[module][1], up)
            assert registry.shape(key)[module] == (len(down), down.shape[1], up.shape[0])


def test_a_restart_changes_nothing(tmp_path, small_base, written):
    with ExpertRegistry(tmp_path / "registry", small_base) as registry:
        registry.bulk_add(written)
        registry.add("e0", written["e1"], replace=True)
        registry.remove("e3")
        registry.quarantine(registry.resolve("e4"), "its answer was not a finite number")
    with ExpertRegistry(tmp_path / "registry", small_base) as registry:
        assert registry.names() == ["e0", "e1", "e2", "e4", "e5", "e6", "e7"]
        assert registry.resolve("e0") == ("e0", 2)
        assert str(registry.resolve("e1")) == "e1@1"
        with pytest.raises(QuarantinedModelError, match="e4@1 is in quarantine, since its answer"):
            registry.resolve("e4")


def test_a_held_version_stays_loadable_after_replacement_and_removal(registry, written):
    first = registry.add("finer", written["e0"])
    before = registry.matrices(first)
    registry.hold(first)
    second = registry.add("finer", written["e2"], replace=True)
    registry.hold(second)
    registry.remove("finer")
    with pytest.raises(UnknownModelError):
        registry.resolve("finer")
    for module, (down, up) in registry.matrices(first).items():
        assert torch.equal(down, before[module][0])
        assert torch.equal(up, before[module][1])
    assert registry.shape(second)
    registry.release(first)
    assert stored_folders(registry) == 1
    with pytest.raises(UnknownModelError, match="finer@1"):
        registry.matrices(first)
    registry.hold(second)
    registry.release(second)
    registry.release(second)
    assert stored_folders(registry) == registry.held() == 0
    with pytest.raises(ValueError, match="finer@2 is released more often"):
        registry.release(second)


def test_versions_are_not_used_again(registry, written):
    assert registry.add("finer", written["e0"]) == ExpertKey("finer", 1)
    registry.remove("finer")
    assert registry.add("finer", written["e1"]) == ExpertKey("finer", 2)
    with pytest.raises(UnknownModelError):
        registry.hold(ExpertKey("finer", 1))


def test_a_name_is_taken_until_it_is_replaced(registry, written):
    registry.add("finer", written["e0"])
    with pytest.raises(NameTakenError, match="an expert named finer already"):
        registry.add("finer", written["e1"])
    with pytest.raises(NameTakenError):
        registry.bulk_add({"new": written["e2"], "finer": written["e1"]})
    assert registry.names() == ["finer"]
    assert registry.versions("finer") == [1]


def test_equal_files_are_stored_once(registry, written):
    registry.bulk_add({f"copy{i}": written["e0"] for i in range(5)})
    registry.add("copy5", written["e0"])
    assert stored_folders(registry) == 1
    for i in range(5):
        registry.remove(f"copy{i}")
    assert registry.matrices(registry.resolve("copy5"))
    registry.remove("copy5")
    assert stored_folders(registry) == 0


def test_an_expert_may_be_replaced_by_equal_files(registry, written):
    registry.add("finer", written["e0"])
    key = registry.add("finer", written["e0"], replace=True)
    assert registry.resolve("finer") == key == ("finer", 2)
    assert registry.matrices(key)
    assert stored_folders(registry) == 1


def test_an_unknown_name_gets_near_ones(registry, written):
    registry.bulk_add({"finer": written["e0"], "xbrl_value": written["e1"]})
    with pytest.raises(UnknownModelError, match="near names are finer"):
        registry.resolve("FinEr2")
    with pytest.raises(UnknownModelError, match="near names are xbrl_value"):
        registry.remove("xbrl_vlaue")
    with pytest.raises(UnknownModelError) as error:
        registry.resolve("\n\x1b[2J" + "a" * 100_000)
    assert len(str(error.value)) < 200
    assert str(error.value).isprintable()


@pytest.mark.parametrize(
    "name",
    ["", "base", ".hidden", "..", "../up", "a/b", "/etc/passwd", "a\\b", "a b", "a\n", "é", "a" * 101, "a\0"],
)
def test_names_that_are_refused(registry, written, name):
    with pytest.raises(FinLoraError):
        registry.add(name, written["e0"])
    with pytest.raises(FinLoraError):
        registry.bulk_add({"good": written["e1"], name: written["e0"]})
    with pytest.raises(FinLoraError):
        registry.add_mixture(name, written["e0"])
    assert registry.names() == []


@pytest.mark.parametrize("name", ["a", "A-1_b.c", "base2", "a" * 100, "-"])
def test_names_that_are_allowed(registry, written, name):
    assert registry.add(name, written["e0"]) == (name, 1)


def test_a_registry_belongs_to_its_base(registry, make_base, tmp_path):
    other = make_base()
    object.__setattr__(other, "revision", "revision-2")
    with pytest.raises(FinLoraError, match="base revision revision-1, not revision-2"):
        ExpertRegistry(registry.folder, other)


def test_a_damaged_index_is_named(tmp_path, small_base):
    folder = tmp_path / "damaged"
    folder.mkdir()
    (folder / "registry.sqlite").write_bytes(b"no database" * 1000)
    with pytest.raises(FinLoraError, match=r"registry\.sqlite cannot be used"):
        ExpertRegistry(folder, small_base)


def test_two_opened_registries_agree(registry, small_base, written):
    with ExpertRegistry(registry.folder, small_base) as other:
        key = registry.add("finer", written["e0"])
        assert other.resolve("finer") == key
        other.hold(key)
        registry.remove("finer")
        assert other.matrices(key)
        with pytest.raises(UnknownModelError):
            registry.matrices(key)
        other.release(key)
    assert stored_folders(registry) == 0


def test_only_folders_within_the_allowed_one_are_read(registry, written, copied, tmp_path):
    allowed = tmp_path / "allowed"
    allowed.mkdir()
    (allowed / "link").symlink_to(written["e0"])
    for source in (
        written["e0"],
        allowed / ".." / "experts" / "e0",
        allowed / "link",
        Path("/etc"),
        Path("a\0b"),
    ):
        with pytest.raises(FinLoraError):
            registry.add("finer", source, within=allowed)
    inside = allowed / "e0"
    copied.rename(inside)
    assert registry.add("finer", inside, within=allowed) == ("finer", 1)


def test_only_the_files_of_an_expert_are_copied(registry, copied):
    (copied / "README.md").write_text("more")
    (copied / "expert.json").write_text(json.dumps({"task": "finer", "base_revision": "revision-1"}))
    registry.add("finer", copied)
    (stored,) = (registry.folder / "contents").iterdir()
    assert {file.name for file in stored.iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
        "expert.json",
    }
