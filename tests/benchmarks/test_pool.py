"""The pool: order, resuming, failures, and what a kill -9 leaves."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType

import psutil
import pytest

from finlora.benchmarks.pool import Finished, Job, run_jobs
from finlora.experts.errors import FinLoraError

HERE = Path(__file__).parent


@pytest.fixture
def toys(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The toy jobs, importable here and in the workers."""
    monkeypatch.syspath_prepend(str(HERE))
    import toy_jobs  # pyright: ignore[reportMissingImports]

    return toy_jobs


@pytest.fixture
def run(toys: ModuleType, tmp_path: Path) -> Callable[..., list[Finished]]:
    """Run jobs whose results go to `tmp_path`."""

    def run_in_folder(jobs: list[Job], workers: int = 2) -> list[Finished]:
        news: list[Finished] = []
        run_jobs(
            jobs,
            make_state=partial(toys.Counter, str(tmp_path)),
            workers=workers,
            log_folder=tmp_path / "log",
            finished=news.append,
        )
        return news

    return run_in_folder


def test_jobs_run_after_what_they_need_and_only_if_needed(toys: ModuleType, tmp_path: Path, run):
    (tmp_path / "done").write_text("old")
    jobs = toys.ordered_jobs(tmp_path)
    news = run(jobs)
    order = [one.job.name for one in news]
    assert sorted(order) == ["first", "free", "second", "third", "threads"]
    assert order.index("first") < order.index("second") < order.index("third")
    assert (tmp_path / "done").read_text() == "old"
    assert (tmp_path / "third").read_text() == "result of third"
    returned = {one.job.name: one.returned for one in news}
    assert returned.pop("threads") == 1
    # Workers live on: four jobs took at most two processes.
    processes = {one["process"] for one in returned.values()}
    assert len(processes) <= 2
    assert os.getpid() not in processes
    logs = "".join(path.read_text() for path in (tmp_path / "log").iterdir())
    assert "writing third" in logs
    assert run(jobs) == []


def test_a_failed_job_ends_the_run_and_keeps_finished_work(toys: ModuleType, tmp_path: Path, run):
    jobs = [
        toys.write_job(tmp_path, "good"),
        Job("bad", (tmp_path / "bad").exists, toys.fail, ("good",)),
        toys.write_job(tmp_path, "later", "bad"),
    ]
    with pytest.raises(FinLoraError, match=r"bad failed: ValueError: the number is odd"):
        run(jobs, workers=1)
    assert (tmp_path / "good").exists()
    assert not (tmp_path / "later").exists()
    assert "Traceback" in (tmp_path / "log" / "worker-0.log").read_text()


def test_a_worker_that_dies_is_reported(toys: ModuleType, tmp_path: Path, run):
    with pytest.raises(FinLoraError, match=r"working on fatal died \(exit code 9"):
        run([Job("fatal", (tmp_path / "fatal").exists, toys.die)])


def test_a_job_without_a_result_is_a_defect(toys: ModuleType, tmp_path: Path, run):
    with pytest.raises(RuntimeError, match="lazy ended without leaving its result"):
        run([Job("lazy", (tmp_path / "lazy").exists, toys.lie)])


def test_jobs_in_the_wrong_order_are_refused(toys: ModuleType, tmp_path: Path, run):
    with pytest.raises(ValueError, match="before a job that it needs"):
        run([toys.write_job(tmp_path, "second", "first"), toys.write_job(tmp_path, "first")])


def start(folder: Path) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(HERE)}
    return subprocess.Popen([sys.executable, str(HERE / "run_toy_jobs.py"), str(folder)], env=environment)


def test_kill_9_ends_the_workers_and_the_same_call_goes_on(toys: ModuleType, tmp_path: Path):
    process = start(tmp_path)
    toys.wait_for((tmp_path / "job-3").exists)
    workers = psutil.Process(process.pid).children(recursive=True)
    assert workers
    process.send_signal(signal.SIGKILL)
    process.wait()

    def alive(worker: psutil.Process) -> bool:
        return worker.is_running() and worker.status() != "zombie"

    toys.wait_for(lambda: not any(map(alive, workers)), 10)
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("job-*")}
    assert 3 <= len(before) < 12
    again = start(tmp_path)
    assert again.wait(60) == 0
    results = {path.name: path.read_text() for path in tmp_path.glob("job-*")}
    assert results == {f"job-{index}": f"result {index}" for index in range(12)}
    assert {name: (tmp_path / name).stat().st_mtime_ns for name in before} == before
