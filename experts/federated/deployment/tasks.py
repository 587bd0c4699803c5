"""Takes tasks from a SuperLink or SuperNode and does them in this process, with the app installed here.

Flower's own executors start a fresh process for every message, which would load the base each time, and run
the Python code of the bundle that the server sent. This one keeps the base loaded, and no code from outside
is ever run. It uses parts of Flower 1.41 that are not public, which is why the extra `federated` allows that
version only.
"""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from flwr.app import Context
from flwr.clientapp import ClientApp
from flwr.common.constant import SubStatus
from flwr.common.serde import context_from_proto, run_from_proto
from flwr.proto.runtime_pb2 import (
    AcquireTaskRequest,
    PullTaskInputRequest,
    SendTaskHeartbeatRequest,
)
from flwr.serverapp import Grid, ServerApp
from flwr.supercore.constant import TaskType
from flwr.supercore.heartbeat import HeartbeatSender
from flwr.supercore.interceptors import (
    RuntimeTokenHttpInterceptor,
    RuntimeVersionHttpInterceptor,
    SuperExecAuthHttpInterceptor,
)
from flwr.supercore.retry import make_simple_http_retry_invoker
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supercore.task_identity import TaskIdentity
from flwr.superlink.grid import HttpGrid
from flwr.supernode.runtime.run_clientapp import pull_task_input, push_message, push_task_output

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.3
PROTECTED = frozenset({"/flwr.proto.Runtime/AcquireTask"})
"""Calls that need the secret that only this process and its SuperLink or SuperNode know."""


@dataclass(frozen=True)
class Endpoint:
    """Where tasks come from."""

    address: str
    """host:port of the SuperLink's or SuperNode's Runtime API."""
    secret: Path
    """File of the secret that was given to it with `--superexec-auth-secret-file`."""
    authority: Path | None = None
    """Certificate to check its own by; None speaks plain HTTP, which is for a SuperNode on this machine
    only."""

    def client(self, *, token: str | None = None) -> RuntimeHttpClient:
        """Return a connection: that of one task with its token, without one that which asks for tasks."""
        secret = SuperExecAuthHttpInterceptor(
            master_secret=self.secret.read_bytes(), protected_methods=PROTECTED
        )
        return RuntimeHttpClient.from_server_address(
            server_address=self.address,
            insecure=self.authority is None,
            root_certificates=None if self.authority is None else self.authority.read_bytes(),
            interceptors=[
                RuntimeVersionHttpInterceptor(component_name="finlora"),
                RuntimeTokenHttpInterceptor(token) if token else secret,
            ],
            retry_invoker=make_simple_http_retry_invoker(),
        )


def do_bank_tasks(endpoint: Endpoint, app: ClientApp) -> None:
    """Answer messages until the process is stopped; one that fails is logged here and the next one taken."""
    for token in _tokens(endpoint, TaskType.CLIENT_APP, lambda: True):
        try:
            with _task(endpoint, token) as client:
                message, context, _, _ = pull_task_input(client)
                push_message(client, app(message, context), context)
                push_task_output(client, context, SubStatus.COMPLETED, "")
        except (httpx.HTTPError, RuntimeError):
            logger.exception("A message could not be answered.")


def do_server_task(endpoint: Endpoint, app: ServerApp, *, timeout: float) -> None:
    """Take the one run that was submitted, and do it.

    Args:
        endpoint: The SuperLink.
        app: What a run does.
        timeout: Seconds to wait for the run.

    Raises:
        TimeoutError: No run was submitted in time.
        FinLoraError: The run ended in one.
    """
    end = time.monotonic() + timeout
    token = next(_tokens(endpoint, TaskType.SERVER_APP, lambda: time.monotonic() < end), None)
    if token is None:
        raise TimeoutError
    with _task(endpoint, token) as client:
        task = client.PullTaskInput(PullTaskInputRequest())
        context, run = context_from_proto(task.context), run_from_proto(task.run)
        TaskIdentity.task_id, TaskIdentity.run_id = task.task_id, run.run_id
        TaskIdentity.node_id = context.node_id
        grid = HttpGrid(
            endpoint.address,
            insecure=endpoint.authority is None,
            root_certificates=None if endpoint.authority is None else endpoint.authority.read_bytes(),
            token=token,
        )
        grid.set_run(run)
        try:
            _run(app, grid, context, client)
        finally:
            grid.close()


def _run(app: ServerApp, grid: Grid, context: Context, client: RuntimeHttpClient) -> None:
    status, details = SubStatus.FAILED, "The run failed; the server's process says why."
    try:
        app(grid, context)
        status, details = SubStatus.COMPLETED, ""
    finally:
        push_task_output(client, context, status, details)


def _tokens(endpoint: Endpoint, kind: str, go_on: Callable[[], bool]) -> Iterator[str]:
    """Yield the token of each task; while nobody listens at the endpoint, wait."""
    client = endpoint.client()
    request = AcquireTaskRequest(supported_task_types=[kind])
    while go_on():
        try:
            answer = client.AcquireTask(request)
        except httpx.HTTPError:
            time.sleep(POLL_SECONDS)
            continue
        if answer.HasField("task") and answer.token:
            yield answer.token
        else:
            time.sleep(POLL_SECONDS)


@contextmanager
def _task(endpoint: Endpoint, token: str) -> Iterator[RuntimeHttpClient]:
    client = endpoint.client(token=token)

    def beat() -> bool:
        # Flower's own function stops the process when the task is over; this process outlives its tasks.
        try:
            client.SendTaskHeartbeat(SendTaskHeartbeatRequest())
        except httpx.HTTPError:
            return False
        return True

    heartbeat = HeartbeatSender(beat)
    heartbeat.start()
    try:
        yield client
    finally:
        heartbeat.stop()
        client.close()
