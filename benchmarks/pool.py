"""Runs jobs that depend on each other on a few long-lived worker processes. Knows nothing of what a job does.

A job says itself whether it is finished, by what it left on disk, so a run that was killed goes on where it
stood. Every worker computes on one thread, so a job's result depends neither on the number of workers nor on
which of them ran it.
"""

from __future__ import annotations

import os
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing import connection, get_context
from pathlib import Path
from typing import Any

from ..experts.errors import FinLoraError

_ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
_SECONDS_BETWEEN_LOOKS_AT_PARENT = 0.2


@dataclass(frozen=True)
class Job:
    """One piece of work.

    Attributes:
        name: Unique name, shown to the user.
        is_done: Whether its result is on disk.
        action: Called in a worker with the worker's state; picklable. What it returns is sent to the
            listener.
        needs: Names of jobs that come first.
    """

    name: str
    is_done: Callable[[], bool]
    action: Callable[[Any], Any]
    needs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Finished:
    """News of a finished job: what its action returned."""

    job: Job
    returned: Any


@dataclass
class _Worker:
    process: Any
    pipe: Any
    job: Job | None = None


@dataclass
class _Progress:
    waiting: list[Job]
    done: set[str]
    running: dict[str, Job] = field(default_factory=dict)

    def next_ready(self) -> Job | None:
        for job in self.waiting:
            if self.done.issuperset(job.needs):
                self.waiting.remove(job)
                return job
        return None


def run_jobs(
    jobs: Sequence[Job],
    *,
    make_state: Callable[[], Any],
    workers: int,
    log_folder: Path,
    started: Callable[[Sequence[str]], object] = lambda names: None,
    finished: Callable[[Finished], object] = lambda news: None,
) -> None:
    """Run all jobs that are not done, each after the jobs it needs.

    Args:
        jobs: The jobs; of those that are ready the earliest in this order starts first.
        make_state: Called once in every worker; its result is handed to every action. Picklable.
        workers: Number of processes.
        log_folder: Where the workers' output goes, one file a worker.
        started: Called with the names of all jobs in progress whenever one starts.
        finished: Called when a job is finished.

    Raises:
        FinLoraError: A job failed or its process died; work finished before is kept.
    """
    progress = _Progress([job for job in jobs if not job.is_done()], set())
    progress.done = {job.name for job in jobs} - {job.name for job in progress.waiting}
    _check(jobs)
    if not progress.waiting:
        return
    crew = _hire(min(workers, len(progress.waiting)), make_state, log_folder)
    try:
        while progress.waiting or progress.running:
            _hand_out(crew, progress, started)
            _collect(crew, progress, finished, log_folder)
    finally:
        for worker in crew:
            worker.process.terminate()
        for worker in crew:
            worker.process.join()


def _check(jobs: Sequence[Job]) -> None:
    known: set[str] = set()
    for job in jobs:
        if job.name in known or not known.issuperset(job.needs):
            raise ValueError(f"job {job.name} appears twice, or before a job that it needs")
        known.add(job.name)


def _hand_out(crew: list[_Worker], progress: _Progress, started: Callable[[Sequence[str]], object]) -> None:
    for worker in crew:
        if worker.job is None and (job := progress.next_ready()) is not None:
            with suppress(OSError):  # a worker that died is reported when its answer is collected
                worker.pipe.send((job.action, job.name))
            worker.job = progress.running[job.name] = job
            started(list(progress.running))


def _collect(
    crew: list[_Worker], progress: _Progress, finished: Callable[[Finished], object], log_folder: Path
) -> None:
    busy = {worker.pipe: worker for worker in crew if worker.job is not None}
    for pipe in connection.wait(list(busy)):
        worker = busy[pipe]
        job = worker.job
        assert job is not None
        try:
            failure, returned = worker.pipe.recv()
        except (EOFError, OSError):
            worker.process.join()
            raise FinLoraError(
                f"The process working on {job.name} died (exit code {worker.process.exitcode}; -9 often "
                "means that memory ran out); finished work is kept, run the same command again to go on. "
                f"Log: {log_folder}"
            ) from None
        if failure is not None:
            raise FinLoraError(f"{job.name} failed: {failure} Log: {log_folder}")
        if not job.is_done():
            raise RuntimeError(f"job {job.name} ended without leaving its result")
        worker.job = None
        del progress.running[job.name]
        progress.done.add(job.name)
        finished(Finished(job, returned))


def _hire(count: int, make_state: Callable[[], Any], log_folder: Path) -> list[_Worker]:
    log_folder.mkdir(parents=True, exist_ok=True)
    spawn = get_context("spawn")
    crew = []
    with _environment(_ONE_THREAD):
        for index in range(count):
            ours, theirs = spawn.Pipe()
            arguments = (theirs, make_state, log_folder / f"worker-{index}.log", os.getpid())
            process = spawn.Process(target=_work, args=arguments, name=f"finlora-worker-{index}")
            process.start()
            theirs.close()
            crew.append(_Worker(process, ours))
    return crew


@contextmanager
def _environment(changes: Mapping[str, str]) -> Iterator[None]:
    """Set variables for processes started in the block: thread counts are read when their libraries load."""
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


def _work(pipe: Any, make_state: Callable[[], Any], log: Path, parent: int) -> None:
    threading.Thread(target=_exit_with, args=(parent,), daemon=True).start()
    with log.open("a") as file:
        # At the level of file descriptors, so that progress bars and warnings of native code go there too.
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    state = None
    while True:
        try:
            action, name = pipe.recv()
        except (EOFError, KeyboardInterrupt):
            return
        print(f"--- {time.strftime('%Y-%m-%d %H:%M:%S')} {name}", flush=True)
        try:
            state = make_state() if state is None else state
            answer = (None, action(state))
        except FinLoraError as error:
            answer = (str(error), None)
        except Exception as error:
            traceback.print_exc()
            answer = (f"{type(error).__name__}: {error}", None)
        except KeyboardInterrupt:
            return
        pipe.send(answer)


def _exit_with(parent: int) -> None:
    """End this process when its parent is gone, however it went: kill -9 leaves nobody to tell workers."""
    while os.getppid() == parent:
        time.sleep(_SECONDS_BETWEEN_LOOKS_AT_PARENT)
    os._exit(1)
