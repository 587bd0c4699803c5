"""Workers that are processes of this machine, and end with the process that started them."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import connection, get_context
from pathlib import Path
from typing import Any

from .crew import ONE_THREAD, Answer, DeadWorkerError, Desk, Job, environment

_SECONDS_BETWEEN_LOOKS_AT_PARENT = 0.2


class ProcessCrew:
    """Workers that are processes of this machine."""

    def __init__(self, most: int, make_state: Callable[[], Any], log_folder: Path):
        """Start as many as are allowed."""
        self.size = most
        self._pipes: list[Any] = []
        self._processes: list[Any] = []
        self._busy: set[int] = set()
        spawn = get_context("spawn")
        with environment(ONE_THREAD):
            for index in range(most):
                ours, theirs = spawn.Pipe()
                arguments = (theirs, make_state, log_folder / f"worker-{index}.log", os.getpid())
                process = spawn.Process(target=_work, args=arguments, name=f"finlora-worker-{index}")
                process.start()
                theirs.close()
                self._processes.append(process)
                self._pipes.append(ours)

    def give(self, worker: int, job: Job) -> None:
        """Let a worker that is free begin a job."""
        with suppress(OSError):  # a worker that died is reported when its answer is collected
            self._pipes[worker].send(job)
        self._busy.add(worker)

    def answers(self) -> list[tuple[int, Answer]]:
        """Wait until a worker, or several, are through, and return their numbers and answers."""
        busy = {self._pipes[worker]: worker for worker in self._busy}
        return [(busy[pipe], self._answer(busy[pipe])) for pipe in connection.wait(list(busy))]

    def dismiss(self) -> None:
        """End all workers, whatever they are doing."""
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.join()

    def _answer(self, worker: int) -> Answer:
        self._busy.remove(worker)
        try:
            return self._pipes[worker].recv()
        except (EOFError, OSError):
            process = self._processes[worker]
            process.join()
            raise DeadWorkerError(
                worker, f"exit code {process.exitcode}; -9 often means that memory ran out"
            ) from None


def _work(pipe: Any, make_state: Callable[[], Any], log: Path, parent: int) -> None:
    threading.Thread(target=_exit_with, args=(parent,), daemon=True).start()
    desk = Desk(make_state, log)
    while True:
        try:
            pipe.send(desk.work(pipe.recv()))
        except (EOFError, KeyboardInterrupt):
            return


def _exit_with(parent: int) -> None:
    """End this process when its parent is gone, however it went: kill -9 leaves nobody to tell workers."""
    while os.getppid() == parent:
        time.sleep(_SECONDS_BETWEEN_LOOKS_AT_PARENT)
    os._exit(1)
