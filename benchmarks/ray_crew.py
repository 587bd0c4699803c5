"""Workers that are Ray actors, on this machine or on those of a cluster.

Jobs and their results are the same as on processes of one machine. All machines must see the run's folder
under the same path, on a file system that they share, and have the same FinLoRA installed. Where such a file
system remembers that a file is absent, as NFS does, mount it with `lookupcache=positive`.
"""

from __future__ import annotations

import logging
import os
import platform
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..experts.errors import FinLoraError
from .crew import ONE_THREAD, Answer, DeadWorkerError, Desk, Job, environment

LOCAL = "local"
"""Address that starts a Ray of its own on this machine, which ends with the run."""

OBJECT_STORE_BYTES = 100 * 2**20
"""Nothing larger than a job and its answer goes through Ray; its own default is 30 % of the memory."""

_QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}


class RayDesk:
    """The process of an actor."""

    def __init__(self) -> None:
        self._desk: Desk | None = None

    def open(self, folder: Path, marker: Path, make_state: Callable[[], Any], log: Path) -> str | None:
        """Get ready for jobs.

        Args:
            folder: Working directory of the process that runs the benchmark.
            marker: A file that it left in the run's folder.
            make_state: Called once; its result is handed to every action.
            log: Where output goes.

        Returns:
            The name of this machine if it does not see the marker, so that it cannot work, else None.
        """
        try:
            os.chdir(folder)
            marker.stat()
        except OSError:
            return platform.node()
        self._desk = Desk(make_state, log)
        return None

    def work(self, job: Job) -> Answer:
        """Do a job; what goes wrong is in the answer."""
        assert self._desk is not None
        return self._desk.work(job)


class RayCrew:
    """Workers that are Ray actors, one for each GPU, or each CPU where there is no GPU, at most.

    Args:
        address: `local`, or that of a running cluster: `auto` for one on this machine, `HOST:PORT` or
            `ray://HOST:PORT`.
        most: Largest number of workers.
        make_state: Called once in every worker.
        log_folder: Where the workers' output goes; in the run's folder.

    Raises:
        FinLoraError: If Ray is not installed, no cluster is found, or a machine does not see the folder.
    """

    def __init__(self, address: str, most: int, make_state: Callable[[], Any], log_folder: Path):
        self._ray = _import_ray()
        self._running: dict[Any, int] = {}
        self._actors: list[Any] = []
        _connect(self._ray, address, most)
        try:
            self._start(most)
            self._open_desks(make_state, log_folder)
        except BaseException:
            self.dismiss()
            raise

    @property
    def size(self) -> int:
        """Number of workers."""
        return len(self._actors)

    def give(self, worker: int, job: Job) -> None:
        """Let a worker that is free begin a job."""
        self._running[self._actors[worker].work.remote(job)] = worker

    def answers(self) -> list[tuple[int, Answer]]:
        """Wait until a worker, or several, are through, and return their numbers and answers."""
        ready, _ = self._ray.wait(list(self._running))
        return [self._answer(reference) for reference in ready]

    def dismiss(self) -> None:
        """End all workers, whatever they are doing, and the Ray that was started for them."""
        for actor in self._actors:
            self._ray.kill(actor)
        self._ray.shutdown()

    def _answer(self, reference: Any) -> tuple[int, Answer]:
        worker = self._running.pop(reference)
        try:
            return worker, self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            raise DeadWorkerError(worker, _first_line(error)) from None

    def _start(self, most: int) -> None:
        resources = self._ray.cluster_resources()
        kind = "GPU" if resources.get("GPU", 0) >= 1 else "CPU"
        room = int(resources.get(kind, 0))
        if not room:
            raise FinLoraError("The Ray cluster has neither a GPU nor a CPU; start it with --num-cpus.")
        options = {
            "num_cpus": 1 if kind == "CPU" else 0,
            "num_gpus": 1 if kind == "GPU" else 0,
            "runtime_env": {"env_vars": ONE_THREAD},
            "scheduling_strategy": "SPREAD",
        }
        actor = self._ray.remote(RayDesk).options(**options)
        self._actors = [actor.remote() for _ in range(min(most, room))]

    def _open_desks(self, make_state: Callable[[], Any], log_folder: Path) -> None:
        marker = leave_marker(log_folder)
        try:
            blind = self._ray.get(
                [
                    actor.open.remote(Path.cwd(), marker, make_state, log_folder / f"worker-{index}.log")
                    for index, actor in enumerate(self._actors)
                ]
            )
        except self._ray.exceptions.RayError as error:
            raise FinLoraError(
                f"A worker could not start on the Ray cluster: {_first_line(error)} Install the same FinLoRA "
                "on all its machines."
            ) from error
        finally:
            marker.unlink(missing_ok=True)
        if machines := sorted({machine for machine in blind if machine is not None}):
            raise FinLoraError(
                f"{', '.join(machines)} of the Ray cluster does not see {log_folder.parent.resolve()}; give "
                "--runs on a file system that all its machines share under the same path."
            )


def leave_marker(folder: Path) -> Path:
    """Create an empty file that no machine can have looked for before."""
    marker = folder / f".seen-{uuid.uuid4().hex}"
    marker.touch()
    return marker


def _import_ray() -> Any:
    try:
        import ray
    except ImportError:
        raise FinLoraError(
            "Ray is not installed; run `pip install finlora[ray]` or leave --ray out."
        ) from None
    return ray


def _connect(ray: Any, address: str, most: int) -> None:
    settings: dict[str, Any] = {"address": address, "log_to_driver": False, "logging_level": logging.ERROR}
    if address == LOCAL:
        settings |= {
            "num_cpus": most,
            "include_dashboard": False,
            "object_store_memory": OBJECT_STORE_BYTES,
        }
    try:
        with environment(_QUIET):
            ray.init(**settings)
    except (ConnectionError, ImportError, RuntimeError, ValueError) as error:
        raise FinLoraError(
            f"Cannot join the Ray cluster {address}: {_first_line(error)} Start one with `ray start --head` "
            "and give its address, or give none."
        ) from error


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
