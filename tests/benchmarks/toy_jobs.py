"""Small jobs for the tests of the pool; a module of its own, because workers import what they run."""

import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from finlora.benchmarks.crew import Job


class Counter:
    """State of a worker: where results go, and how many jobs this worker did."""

    def __init__(self, folder: str):
        self.folder = Path(folder)
        self.jobs = 0


def write(state: Counter, *, name: str, text: str, seconds: float = 0.0) -> dict[str, int]:
    """Leave a file, and tell who wrote it."""
    print(f"writing {name}")
    time.sleep(seconds)
    state.jobs += 1
    temporary = state.folder / f".{name}.{os.getpid()}"
    temporary.write_text(text)
    temporary.replace(state.folder / name)
    return {"process": os.getpid(), "jobs": state.jobs}


def count_threads(state: Counter) -> int:
    """Tell how many threads a computation would use, and leave a file."""
    import torch

    (state.folder / "threads").touch()
    return torch.get_num_threads()


def fail(state: Counter) -> None:
    """Raise as a defect would."""
    raise ValueError("the number is odd")


def die(state: Counter) -> None:
    """End as a process does that the system kills."""
    os._exit(9)


def lie(state: Counter) -> None:
    """End without a result."""


def write_job(folder: Path, name: str, *needs: str) -> Job:
    """A job that leaves a file of its name."""
    action = partial(write, name=name, text=f"result of {name}")
    return Job(name=name, is_done=(folder / name).exists, action=action, needs=needs)


def ordered_jobs(folder: Path) -> list[Job]:
    """A chain of four jobs, one that needs nothing, and one that counts threads."""
    return [
        write_job(folder, "done"),
        write_job(folder, "first", "done"),
        write_job(folder, "second", "first"),
        write_job(folder, "third", "second"),
        write_job(folder, "free"),
        Job("threads", (folder / "threads").exists, count_threads),
    ]


def wait_for(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait until something is so."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.05)
