"""Runs jobs that depend on each other on a few long-lived workers. Knows nothing of what a job does.

A job says itself whether it is finished, by what it left on disk, so a run that was killed goes on where it
stood. Every worker computes on one thread, so a job's result depends neither on the number of workers nor on
which of them ran it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..experts.errors import FinLoraError
from .crew import Crew, DeadWorkerError, Hire, Job
from .process_crew import ProcessCrew


@dataclass(frozen=True)
class Finished:
    """News of a finished job: what its action returned."""

    job: Job
    returned: Any


@dataclass
class _Progress:
    waiting: list[Job]
    done: set[str]
    running: dict[int, Job] = field(default_factory=dict)

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
    workers: int | None,
    log_folder: Path,
    started: Callable[[Sequence[str]], object] = lambda names: None,
    finished: Callable[[Finished], object] = lambda news: None,
    hire: Hire = ProcessCrew,
) -> None:
    """Run all jobs that are not done, each after the jobs it needs.

    Args:
        jobs: The jobs; of those that are ready the earliest in this order starts first.
        make_state: Called once in every worker; its result is handed to every action. Picklable.
        workers: Largest number of workers; None for as many as find room and work.
        log_folder: Where the workers' output goes, one file a worker.
        started: Called with the names of all jobs in progress whenever one starts.
        finished: Called when a job is finished.
        hire: Starts the workers; by default processes of this machine.

    Raises:
        FinLoraError: A job failed or its process died; work finished before is kept.
    """
    progress = _Progress([job for job in jobs if not job.is_done()], set())
    progress.done = {job.name for job in jobs} - {job.name for job in progress.waiting}
    _check(jobs)
    if not progress.waiting:
        return
    log_folder.mkdir(parents=True, exist_ok=True)
    most = min(workers or len(progress.waiting), len(progress.waiting))
    crew = hire(most, make_state, log_folder)
    try:
        while progress.waiting or progress.running:
            _hand_out(crew, progress, started)
            _collect(crew, progress, finished, log_folder)
    finally:
        crew.dismiss()


def _check(jobs: Sequence[Job]) -> None:
    known: set[str] = set()
    for job in jobs:
        if job.name in known or not known.issuperset(job.needs):
            raise ValueError(f"job {job.name} appears twice, or before a job that it needs")
        known.add(job.name)


def _hand_out(crew: Crew, progress: _Progress, started: Callable[[Sequence[str]], object]) -> None:
    for worker in range(crew.size):
        if worker not in progress.running and (job := progress.next_ready()) is not None:
            crew.give(worker, job)
            progress.running[worker] = job
            started([job.name for job in progress.running.values()])


def _collect(
    crew: Crew, progress: _Progress, finished: Callable[[Finished], object], log_folder: Path
) -> None:
    try:
        answers = crew.answers()
    except DeadWorkerError as death:
        raise FinLoraError(
            f"The process working on {progress.running[death.worker].name} died ({death}); finished work is "
            f"kept, run the same command again to go on. Log: {log_folder}"
        ) from None
    for worker, answer in answers:
        job = progress.running.pop(worker)
        if answer.failure is not None:
            raise FinLoraError(f"{job.name} failed: {answer.failure} Log: {log_folder}")
        if not answer.left_result:
            raise RuntimeError(f"job {job.name} ended without leaving its result")
        progress.done.add(job.name)
        finished(Finished(job, answer.returned))
