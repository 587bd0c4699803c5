"""What workers are, wherever they run: how they are given jobs, and what they do with one."""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from ..experts.errors import FinLoraError

ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
"""Environment of every worker; thread counts are read when their libraries load."""


@dataclass(frozen=True)
class Job:
    """One piece of work.

    Attributes:
        name: Unique name, shown to the user.
        is_done: Whether its result is on disk; picklable.
        action: Called in a worker with the worker's state; picklable. What it returns is sent to the
            listener.
        needs: Names of jobs that come first.
    """

    name: str
    is_done: Callable[[], bool]
    action: Callable[[Any], Any]
    needs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Answer:
    """What a worker says when it is through with a job."""

    returned: Any = None
    """What the action returned."""
    failure: str | None = None
    """Why the job failed, if it did."""
    left_result: bool = False
    """Whether its result is on disk."""


class DeadWorkerError(Exception):
    """A worker's process ended in the middle of a job; the message says how, as far as is known."""

    def __init__(self, worker: int, how: str):
        super().__init__(how)
        self.worker = worker


@runtime_checkable
class Crew(Protocol):
    """Workers, numbered from 0, of which each does one job at a time."""

    @property
    def size(self) -> int:
        """Number of workers."""
        ...

    def give(self, worker: int, job: Job) -> None:
        """Let a worker that is free begin a job."""
        ...

    def answers(self) -> list[tuple[int, Answer]]:
        """Wait until a worker, or several, are through, and return their numbers and answers.

        Raises:
            DeadWorkerError: One of them will never be.
        """
        ...

    def dismiss(self) -> None:
        """End all workers, whatever they are doing."""
        ...


@runtime_checkable
class Hire(Protocol):
    """Starts a crew."""

    def __call__(self, most: int, make_state: Callable[[], Any], log_folder: Path) -> Crew:
        """Start workers.

        Args:
            most: Number of workers that would find work and that the user allows.
            make_state: Called once in every worker; its result is handed to every action.
            log_folder: Where the workers' output goes, one file a worker.
        """
        ...


class Desk:
    """What a worker does with jobs, wherever it runs."""

    def __init__(self, make_state: Callable[[], Any], log: Path):
        """Send the output of this process to the log, and remember how to make the state."""
        self._make_state = make_state
        self._state = None
        with log.open("a") as file:
            # At the level of file descriptors, so that progress bars and native code's warnings go there too.
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)

    def work(self, job: Job) -> Answer:
        """Do a job; what goes wrong is in the answer."""
        print(f"--- {time.strftime('%Y-%m-%d %H:%M:%S')} {job.name}", flush=True)
        try:
            self._state = self._make_state() if self._state is None else self._state
            return Answer(job.action(self._state), left_result=job.is_done())
        except FinLoraError as error:
            return Answer(failure=str(error))
        except Exception as error:
            traceback.print_exc()
            return Answer(failure=f"{type(error).__name__}: {error}")


@contextmanager
def environment(changes: Mapping[str, str]) -> Iterator[None]:
    """Set variables for processes started in the block."""
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
