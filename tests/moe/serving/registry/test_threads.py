"""Threads that add, replace, hold and remove at once, in one opened registry and in two."""

import random
import threading

import pytest
import torch

from finlora.experts.adapter import read_expert
from finlora.experts.errors import FinLoraError
from finlora.moe.bank import read_matrices
from finlora.moe.serving.registry import ExpertRegistry
from finlora.moe.serving.registry_changes import NameTakenError
from finlora.moe.serving.requests import UnknownModelError

from .conftest import stored_folders


def run_together(*works) -> None:
    """Run functions in threads of their own; raises what one of them raised."""
    failures: list[BaseException] = []

    def run(work) -> None:
        try:
            work()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
        assert not thread.is_alive()
    if failures:
        raise failures[0]


def test_what_is_held_stays_whole(registry, small_base, written):
    """Eight threads on six names; a held version gives the matrices of one expert to its last release."""
    expected = [read_matrices(name, read_expert(path)) for name, path in written.items()]
    sources = list(written.values())
    other = ExpertRegistry(registry.folder, small_base)

    def change(opened: ExpertRegistry, seed: int) -> None:
        generator = random.Random(seed)
        for _ in range(12):
            name = f"n{generator.randrange(6)}"
            opened.add(name, generator.choice(sources), replace=True)
            if generator.random() < 0.6:
                try:
                    opened.remove(name)
                except UnknownModelError:
                    continue

    def use(opened: ExpertRegistry, seed: int) -> None:
        generator = random.Random(seed)
        for _ in range(60):
            try:
                key = opened.resolve(f"n{generator.randrange(6)}")
                opened.hold(key)
            except UnknownModelError:
                continue
            first = opened.matrices(key)
            again = opened.matrices(key)
            assert any(
                first.keys() == one.keys() and all(torch.equal(first[name][1], one[name][1]) for name in one)
                for one in expected
            )
            assert all(torch.equal(first[name][0], again[name][0]) for name in first)
            opened.release(key)

    run_together(
        *(
            lambda opened=opened, seed=seed: change(opened, seed)
            for seed in (1, 2)
            for opened in (registry, other)
        ),
        *(
            lambda opened=opened, seed=seed: use(opened, seed)
            for seed in (3, 4)
            for opened in (registry, other)
        ),
    )
    assert registry.held() == other.held() == 0
    for name in registry.names():
        registry.remove(name)
    other.close()
    with ExpertRegistry(registry.folder, small_base) as opened:
        assert stored_folders(opened) == 0
        assert opened.stored() == (0, 0)


def test_one_of_many_gets_a_name(registry, written):
    added, refused = [], []

    def add(source) -> None:
        try:
            added.append(registry.add("finer", source))
        except NameTakenError as error:
            refused.append(error)

    run_together(*(lambda source=source: add(source) for source in written.values()))
    assert added == [("finer", 1)]
    assert len(refused) == 7
    assert stored_folders(registry) == 1


def test_equal_files_come_and_go_at_once(registry, written):
    """Looked up as known, removed before they were entered: then they are copied after all."""

    def come_and_go(name: str) -> None:
        for _ in range(15):
            key = registry.add(name, written["e0"])
            assert registry.shape(key)
            registry.remove(name)

    run_together(*(lambda name=name: come_and_go(name) for name in ("a", "b", "c")))
    assert stored_folders(registry) == 0


def test_names_are_served_while_many_are_added(registry, written):
    """Readers see all of a bulk or nothing of it."""
    seen = set()
    done = threading.Event()

    def look() -> None:
        while not done.is_set():
            seen.add(len(registry.names()))

    def add() -> None:
        try:
            for round_number in range(3):
                registry.bulk_add({f"r{round_number}-{i}": path for i, path in enumerate(written.values())})
        finally:
            done.set()

    run_together(look, add)
    assert seen <= {0, 8, 16, 24}


def test_a_full_disk_is_named(registry, written, monkeypatch):
    def full(*_: object, **__: object):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("finlora.moe.serving.registry.flush_files", full)
    with pytest.raises(FinLoraError, match="cannot be written: No space left on device"):
        registry.add("finer", written["e0"])
    assert registry.names() == []
    assert stored_folders(registry) == 0
