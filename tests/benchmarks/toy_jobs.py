"""Small jobs for the tests of the pool; a module of its own, because workers import what they run."""

import os
import time
from pathlib import Path


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
