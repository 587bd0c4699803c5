"""What thousands of registered experts cost: time to open, memory, and bytes on the disk.

`python -m finlora.benchmarks.serving.registry_size FOLDER DIFFERENT COUNT ...` registers, for each COUNT,
experts of random weights and ranks 1, 2 and 4 for the embedded base, of which DIFFERENT have files of their
own and the others equal ones, and measures each registry in a process of its own.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil

from ...experts.base_model import EMBEDDED_BASE, load_base
from ...moe.serving.registry import ExpertRegistry
from ...moe.serving.requests import UnknownModelError
from .random_experts import make_random_experts

RANKS = (1, 2, 4)
SAMPLES = 200


def fill(folder: Path, count: int, different: int) -> float:
    """Make a registry of so many experts; returns the seconds that registering took."""
    base = load_base(EMBEDDED_BASE, "none")
    made = folder.with_name(f"{folder.name}-made")
    experts = make_random_experts(base, made, count, ranks=RANKS, distinct=different)
    with ExpertRegistry(folder, base) as registry:
        start = time.perf_counter()
        registry.bulk_add(experts)
        seconds = time.perf_counter() - start
    shutil.rmtree(made)
    return seconds


def measure(folder: Path) -> dict[str, float]:
    """Open a registry and use it; seconds and bytes by what was measured."""
    base, opened = load_base(EMBEDDED_BASE, "none"), []
    sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == "open" else None)
    memory = _memory()
    start = time.perf_counter()
    registry = ExpertRegistry(folder, base)
    result: dict[str, float] = {"open seconds": time.perf_counter() - start}
    result["bytes of memory after opening"] = _memory() - memory
    result["expert files read to open"] = sum("contents" in path for path in opened)
    names = registry.names()
    chosen = names[:: max(1, len(names) // SAMPLES)]
    result["registered"] = len(names)
    result["resolve seconds"] = _each(chosen, lambda name: registry.resolve(name))
    result["shape seconds"] = _each(chosen, lambda name: registry.shape(registry.resolve(name)))
    result["near names seconds"] = _each(range(5), lambda _: _miss(registry))
    for name in names:
        _touch(registry, name)
    before = _memory()
    for name in names:
        _touch(registry, name)
    result["bytes of memory after reading all experts once"] = before - memory
    result["bytes of memory after reading all experts twice"] = _memory() - memory
    result["bytes of the index"] = (folder / "registry.sqlite").stat().st_size
    result["bytes of the experts"] = registry.stored()[1]
    return result


def _touch(registry: ExpertRegistry, name: str) -> None:
    for down, up in registry.matrices(registry.resolve(name)).values():
        down.sum().item()
        up.sum().item()


def _miss(registry: ExpertRegistry) -> None:
    with suppress(UnknownModelError):
        registry.resolve("expert-0000X")


def _each(things, work: Callable) -> float:
    start = time.perf_counter()
    for thing in things:
        work(thing)
    return (time.perf_counter() - start) / len(things)


def _memory() -> int:
    return psutil.Process(os.getpid()).memory_info().rss


def main() -> None:
    """Fill and measure; prints one JSON line for each number of experts."""
    if sys.argv[1] == "--measure":
        print(json.dumps(measure(Path(sys.argv[2]))))
        return
    folder, different = Path(sys.argv[1]), int(sys.argv[2])
    for count in map(int, sys.argv[3:]):
        registry = folder / f"registry-{count}"
        registry.mkdir(parents=True)
        added = fill(registry, count, min(count, different))
        command = [
            sys.executable,
            "-m",
            "finlora.benchmarks.serving.registry_size",
            "--measure",
            str(registry),
        ]
        answer = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout
        print(json.dumps({"add seconds": added} | json.loads(answer.splitlines()[-1])), flush=True)


if __name__ == "__main__":
    main()
