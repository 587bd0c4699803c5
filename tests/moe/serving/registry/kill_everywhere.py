"""Kills processes (SIGKILL) in the middle of every change of a registry, and checks what they leave.

Run as a script: `kill_everywhere.py FOLDER EXPERTS STRIDE RANDOM_KILLS`. First a process is killed at every
STRIDE-th line of the registry's code that a change runs through; then RANDOM_KILLS processes that change
things all the time are killed at any moment, also inside SQLite and the kernel. Prints how many were killed.
"""

import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from sqlite3 import connect

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from finlora.experts.adapter import read_expert
from finlora.experts.base_model import Base
from finlora.moe.bank import read_matrices
from finlora.moe.serving.registry import ExpertRegistry

TRACED = ("registry.py", "registry_changes.py", "registry_index.py", "stored_folders.py", "held_versions.py")
TRACED += ("expert_intake.py", "version_leases.py")
SIZES = {"vocab_size": 259, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
SIZES |= {"num_attention_heads": 4, "num_key_value_heads": 2}

Change = Callable[[ExpertRegistry, Mapping[str, Path]], object]


def hold_and_remove(registry: ExpertRegistry, _: Mapping[str, Path]) -> None:
    """Files go with the last release."""
    key = registry.resolve("a")
    registry.hold(key)
    registry.remove("a")
    registry.release(key)


CHANGES: dict[str, Change] = {
    "add": lambda registry, experts: registry.add("new", experts["e5"]),
    "add equal files": lambda registry, experts: registry.add("new", experts["e0"]),
    "replace": lambda registry, experts: registry.add("a", experts["e5"], replace=True),
    "remove": lambda registry, experts: registry.remove("a"),
    "release": hold_and_remove,
    "bulk_add": lambda registry, experts: registry.bulk_add(
        {"new": experts["e5"], "newer": experts["e6"], "a": experts["e7"]}, replace=True
    ),
    "quarantine": lambda registry, experts: registry.quarantine(registry.resolve("a"), "not finite"),
    "add_mixture": lambda registry, experts: registry.add_mixture("mix", experts["e0"].parent / "mixture"),
    "replace mixture": lambda registry, experts: registry.add_mixture(
        "old", experts["e0"].parent / "mixture", replace=True
    ),
    "remove_mixture": lambda registry, experts: registry.remove_mixture("old"),
}


def main(folder: Path, written: Path, stride: int, random_kills: int) -> None:
    """Kill and check."""
    base = Base(LlamaForCausalLM(LlamaConfig(**SIZES)), None, "tiny", "revision-1", "none")  # pyright: ignore
    experts = {path.name: path for path in sorted(written.glob("e?"))}
    expected = [read_matrices(name, read_expert(path)) for name, path in experts.items()]
    start = folder / "start"
    with ExpertRegistry(start, base) as registry:
        registry.bulk_add({"a": experts["e0"], "b": experts["e1"]})
        registry.add_mixture("old", written / "mixture")
        registry.add("b", experts["e2"], replace=True)
    killed = {}
    for name, change in CHANGES.items():
        states, killed[name] = set(), 0
        for line in range(1, 100_000, stride):
            work = shutil.copytree(start, folder / "work")
            ended = run_child(lambda: change_and_die(work, base, experts, change, line))  # noqa: B023
            states.add(check(work, base, expected))
            shutil.rmtree(work)
            if ended:
                break
            killed[name] += 1
        # Nothing between the state before and the state after.
        assert 1 <= len(states) <= 2, (name, states)
    killed["random"] = kill_at_any_moment(folder / "busy", base, experts, expected, random_kills)
    print(json.dumps(killed))


def run_child(work: Callable[[], None]) -> bool:
    """Whether a forked process did its work; False if it was killed."""
    process = os.fork()
    if process == 0:
        work()
        os._exit(0)
    _, status = os.waitpid(process, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, status
    return not os.WIFSIGNALED(status)


def change_and_die(folder: Path, base: Base, experts: Mapping[str, Path], change: Change, line: int) -> None:
    """Make a change, and die at its n-th line."""
    registry = ExpertRegistry(folder, base)
    left = line

    def trace(frame, event, _):
        nonlocal left
        if not frame.f_code.co_filename.endswith(TRACED):
            return None
        if event == "line":
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    sys.settrace(trace)
    change(registry, experts)
    sys.settrace(None)


def kill_at_any_moment(folder: Path, base: Base, experts: Mapping[str, Path], expected, times: int) -> int:
    """Kill a process that changes a registry all the time; the registry goes on from kill to kill."""
    generator = random.Random(0)
    for number in range(times):
        process = os.fork()
        if process == 0:
            change_forever(folder, base, experts, number)
        time.sleep(generator.uniform(0.05, 0.4))
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        check(folder, base, expected)
    return times


def change_forever(folder: Path, base: Base, experts: Mapping[str, Path], seed: int) -> None:
    """Add, replace and remove at random; names of one bulk always come and go together."""
    generator = random.Random(seed)
    registry = ExpertRegistry(folder, base)
    while True:
        sources = generator.sample(list(experts.values()), 3)
        registry.bulk_add({f"bulk{i}": source for i, source in enumerate(sources)}, replace=True)
        name = f"n{generator.randrange(3)}"
        registry.add(name, sources[0], replace=True)
        registry.remove(name)


def check(folder: Path, base: Base, expected) -> str:
    """Check that a registry is whole and works; returns what it serves."""
    with ExpertRegistry(folder, base) as registry:
        served = {}
        for name in registry.names():
            served[name] = which(registry.matrices(registry._index.expert(name).key), expected)
        for name in registry.mixture_names():
            mixture = registry._index.mixture(name)
            assert mixture is not None
            assert json.loads((registry._folders.path(mixture.content) / "mixture.json").read_text())
            served[name] = [which(registry.matrices(key), expected) for key in mixture.experts.values()]
        assert len([name for name in served if name.startswith("bulk")]) in (0, 3)
        quarantined = sorted(map(str, registry.quarantined()))
        assert registry._index.garbage() == []
        with closing(connect(folder / "registry.sqlite")) as index:
            assert index.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            assert index.execute("PRAGMA foreign_key_check").fetchall() == []
            numbers = {str(number) for (number,) in index.execute("SELECT number FROM contents")}
        found = {path.name for path in (folder / "contents").iterdir()}
        assert numbers <= found
        # One folder may have been placed just before the kill; its number is the next one.
        assert all(int(name) > max(map(int, numbers), default=0) for name in found - numbers)
        assert len(list((folder / "incoming").iterdir())) == 1
    return json.dumps([served, quarantined], sort_keys=True)


def which(matrices, expected) -> int:
    """Number of the written expert that these matrices are; all of them, to the bit."""
    for number, other in enumerate(expected):
        if all(
            name in matrices and all(map(torch.equal, matrices[name], pair)) for name, pair in other.items()
        ):
            return number
    raise AssertionError("matrices of no expert")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
