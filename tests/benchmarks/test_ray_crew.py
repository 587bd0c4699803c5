"""Ray workers: they do what processes do, on a running cluster too, and nothing is left of them."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import psutil
import pytest

from finlora.benchmarks import ray_crew
from finlora.benchmarks.pool import Finished, Job, run_jobs
from finlora.benchmarks.ray_crew import LOCAL, RayCrew
from finlora.experts.errors import FinLoraError

HERE = Path(__file__).parent

needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed: pip install -e .[ray]")


@pytest.fixture(scope="module")
def toys() -> Iterator[ModuleType]:
    """The toy jobs, importable here and in the workers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(HERE))
        patch.setenv("PYTHONPATH", str(HERE))
        import toy_jobs  # pyright: ignore[reportMissingImports]

        yield toy_jobs


@pytest.fixture(scope="module")
def address(toys: ModuleType) -> Iterator[str]:
    """A running cluster with two CPUs, as somebody else would have started it."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 2, "include_dashboard": False, "object_store_memory": 100 * 2**20},
    )
    yield cluster.address
    cluster.shutdown()
    assert not ray_processes(psutil.Process())


def ray_processes(parent: psutil.Process) -> list[psutil.Process]:
    """Those of Ray below a process that still run."""
    return [one for one in parent.children(recursive=True) if "ray" in one.name() and is_alive(one)]


def is_alive(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def run(toys: ModuleType, folder: Path, jobs: list[Job], address: str) -> list[Finished]:
    """Run jobs whose results go to a folder."""
    news: list[Finished] = []
    run_jobs(
        jobs,
        make_state=partial(toys.Counter, str(folder)),
        workers=None,
        log_folder=folder / "log",
        finished=news.append,
        hire=partial(RayCrew, address),
    )
    return news


@needs_ray
def test_jobs_run_after_what_they_need_and_only_if_needed(toys: ModuleType, tmp_path: Path, address: str):
    (tmp_path / "done").write_text("old")
    jobs = toys.ordered_jobs(tmp_path)
    news = run(toys, tmp_path, jobs, address)
    order = [one.job.name for one in news]
    assert sorted(order) == ["first", "free", "second", "third", "threads"]
    assert order.index("first") < order.index("second") < order.index("third")
    assert (tmp_path / "third").read_text() == "result of third"
    returned = {one.job.name: one.returned for one in news}
    assert returned.pop("threads") == 1
    # The cluster has two CPUs, so it has two workers, which live on from job to job.
    processes = {one["process"] for one in returned.values()}
    assert len(processes) <= 2
    assert os.getpid() not in processes
    logs = "".join(path.read_text() for path in (tmp_path / "log").glob("worker-*.log"))
    assert "writing third" in logs
    assert sorted(path.name for path in (tmp_path / "log").iterdir()) == ["worker-0.log", "worker-1.log"]
    assert run(toys, tmp_path, jobs, address) == []


@needs_ray
def test_a_killed_actor_is_reported_and_the_same_call_goes_on(toys: ModuleType, tmp_path: Path, address: str):
    good = toys.write_job(tmp_path, "good")
    with pytest.raises(FinLoraError, match=r"working on fatal died \(.+\); finished work is kept"):
        run(toys, tmp_path, [good, Job("fatal", (tmp_path / "fatal").exists, toys.die, ("good",))], address)
    assert (tmp_path / "good").exists()
    news = run(toys, tmp_path, [good, toys.write_job(tmp_path, "fatal", "good")], address)
    assert [one.job.name for one in news] == ["fatal"]


@needs_ray
def test_a_machine_that_does_not_see_the_folder_is_named(
    toys: ModuleType, tmp_path: Path, address: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(ray_crew, "leave_marker", lambda folder: folder / "seen here alone")
    with pytest.raises(FinLoraError, match=r"of the Ray cluster does not see .+; give --runs"):
        run(toys, tmp_path, [toys.write_job(tmp_path, "first")], address)


@needs_ray
def test_an_address_where_nothing_runs_is_one_sentence(toys: ModuleType, tmp_path: Path):
    with pytest.raises(FinLoraError, match=r"Cannot join the Ray cluster nonsense: "):
        run(toys, tmp_path, [toys.write_job(tmp_path, "first")], "nonsense")


def test_ray_missing_is_one_sentence(toys: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(FinLoraError, match="Ray is not installed"):
        run(toys, tmp_path, [toys.write_job(tmp_path, "first")], LOCAL)


def start(folder: Path) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(HERE)}
    command = [sys.executable, str(HERE / "run_toy_jobs.py"), str(folder), "ray"]
    return subprocess.Popen(command, env=environment)


@needs_ray
def test_kill_9_ends_a_local_ray_and_the_same_call_goes_on(toys: ModuleType, tmp_path: Path):
    process = start(tmp_path)
    toys.wait_for((tmp_path / "job-3").exists)
    below = psutil.Process(process.pid).children(recursive=True)
    assert any("raylet" in one.name() for one in below)
    process.send_signal(signal.SIGKILL)
    process.wait()
    agents = [one for one in below if one.name().endswith("Agent")]
    toys.wait_for(lambda: not any(is_alive(one) for one in below if one not in agents), 20)
    for agent in agents:
        # Ray's own, which do nothing, wait for the dead cluster for a minute before they end.
        agent.kill()
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("job-*")}
    assert 3 <= len(before) < 12
    again = start(tmp_path)
    assert again.wait(60) == 0
    results = {path.name: path.read_text() for path in tmp_path.glob("job-*")}
    assert results == {f"job-{index}": f"result {index}" for index in range(12)}
    assert {name: (tmp_path / name).stat().st_mtime_ns for name in before} == before
