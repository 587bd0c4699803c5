"""Replicas of one server on Ray Serve; a request goes to one that has its experts on the device already.

A thin entry reads which model a request names and forwards it; each replica is the whole application of
`http/app.py` with an engine of its own. All replicas share the registry's folder, so that an expert added on
one is served by all. Limits of keys and metrics are those of each replica.
"""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from ray import serve
from ray.serve.config import HTTPOptions, RequestRouterConfig
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from ...experts.errors import FinLoraError
from .http.api_error import ApiError
from .http.api_parts import ApiParts
from .http.server import ServerPlan, open_app
from .mixture_check import RouterBuilder
from .requests import BASE_MODEL
from .resident_router import ResidentRouter

STATS_SECONDS = 0.5
"""How often replicas tell what is on their devices."""
APPLICATION = "finlora"


@dataclass(frozen=True)
class Forwarded:
    """One HTTP request on its way to a replica."""

    method: str
    path: str
    query: bytes
    headers: list[tuple[bytes, bytes]]
    body: bytes
    models: frozenset[str]
    """Names that it needs: of an expert, of a mixture, or of all experts of a set."""


class Replica:
    """One engine with its application."""

    def __init__(self, plan: ServerPlan, build_router: RouterBuilder):
        """Load the base and start."""
        self._open = ExitStack()
        self._app = self._open.enter_context(open_app(plan, build_router))

    def record_routing_stats(self) -> dict[str, list[str]]:
        """Tell Ray which experts, and which whole mixtures, are on the device."""
        parts: ApiParts = self._app.state.parts
        keys = set(parts.engine.state().resident)
        names = {key.rpartition("@")[0] for key in keys}
        for name in parts.registry.mixture_names():
            try:
                experts = parts.registry.mixture(name).experts.values()
            except FinLoraError:
                continue
            if keys.issuperset(map(str, experts)):
                names.add(name)
        return {"resident": sorted(names)}

    async def answer(self, forwarded: Forwarded) -> AsyncIterator[dict[str, Any]]:
        """Yield what the application sends, as messages of ASGI; its end cancels the application's work."""
        received: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        received.put_nowait({"type": "http.request", "body": forwarded.body, "more_body": False})
        sent: asyncio.Queue[Any] = asyncio.Queue()
        work = asyncio.create_task(self._app(_scope(forwarded), received.get, sent.put))
        work.add_done_callback(lambda _: sent.put_nowait(None))
        try:
            while (message := await sent.get()) is not None:
                if message["type"] == "http.response.start":
                    number = serve.get_replica_context().replica_id.unique_id
                    message["headers"] = [*message["headers"], (b"x-finlora-replica", number.encode())]
                yield message
            await work
        finally:
            received.put_nowait({"type": "http.disconnect"})
            work.cancel()

    def __del__(self) -> None:
        """Stop the engine with the replica."""
        if hasattr(self, "_open"):
            self._open.close()


def _scope(forwarded: Forwarded) -> dict[str, Any]:
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": forwarded.method,
        "scheme": "http",
        "path": forwarded.path,
        "raw_path": forwarded.path.encode(),
        "query_string": forwarded.query,
        "root_path": "",
        "headers": forwarded.headers,
    }


class Entry:
    """Takes HTTP requests and forwards them."""

    def __init__(self, replicas: Any, most_bytes: int):
        """Forward to a handle of replicas.

        Args:
            replicas: Handle of a deployment of `Replica`.
            most_bytes: Largest body.
        """
        self._replicas, self._most_bytes = replicas, most_bytes

    async def __call__(self, request: Request) -> Response:
        """Answer one request."""
        body = bytearray()
        async for part in request.stream():
            body += part
            if len(body) > self._most_bytes:
                return ApiError(413, f"The body is larger than {self._most_bytes:,} bytes.").response()
        forwarded = Forwarded(
            request.method,
            request.url.path,
            request.url.query.encode(),
            list(request.headers.raw),
            bytes(body),
            named_models(bytes(body)),
        )
        messages = self._replicas.options(stream=True).answer.remote(forwarded)
        start = await anext(aiter(messages))
        answer = StreamingResponse(_bodies(messages), status_code=start["status"])
        answer.raw_headers = list(start["headers"])
        return answer


async def _bodies(messages: Any) -> AsyncIterator[bytes]:
    try:
        async for message in messages:
            yield message.get("body", b"")
    finally:
        # Of an answer that is complete, nothing is left to cancel.
        messages.cancel()


def named_models(body: bytes) -> frozenset[str]:
    """Return which models a request's body names beside the base, which every replica has.

    None if it cannot be read, which a replica will explain.
    """
    try:
        model = json.loads(body)["model"]
        weights = json.loads(model) if isinstance(model, str) and model.lstrip().startswith("{") else model
    except (ValueError, KeyError, TypeError, RecursionError):
        return frozenset()
    if isinstance(weights, str):
        return frozenset({weights} - {BASE_MODEL})
    return frozenset(weights) if isinstance(weights, Mapping) else frozenset()


def start_replicas(
    plan: ServerPlan, build_router: RouterBuilder, *, count: int, host: str, port: int
) -> None:
    """Start replicas on the Ray cluster that this process is connected to, or on one of its own.

    Returns when all of them answer; `ray.serve.shutdown` stops them.

    Args:
        plan: What every replica serves; its registry must be a folder that all of them see.
        build_router: Makes a mixture's router.
        count: Number of replicas, each with a base of its own.
        host: Address to listen at.
        port: Port to listen at.
    """
    router = RequestRouterConfig(
        request_router_class=ResidentRouter,  # pyright: ignore[reportArgumentType]
        request_routing_stats_period_s=STATS_SECONDS,  # pyright: ignore[reportArgumentType]
    )
    replicas = serve.deployment(
        Replica,
        name="Replica",
        num_replicas=count,
        ray_actor_options={"num_cpus": 1, "num_gpus": 1 if torch.cuda.is_available() else 0},
        # A replica that is this busy passes requests on to others, resident or not.
        max_ongoing_requests=2 * plan.engine.max_requests,
        request_router_config=router,
    ).bind(plan, build_router)
    entry = serve.deployment(
        Entry, name="Entry", ray_actor_options={"num_cpus": 0}, max_ongoing_requests=plan.api.open_limit
    ).bind(replicas, plan.api.upload_limit)
    serve.start(http_options=HTTPOptions(host=host, port=port))
    serve.run(entry, name=APPLICATION, route_prefix="/")


def run_replicas(plan: ServerPlan, build_router: RouterBuilder, *, count: int, host: str, port: int) -> None:
    """Start replicas, as `start_replicas` does, and stop them when the process is interrupted."""
    start_replicas(plan, build_router, count=count, host=host, port=port)
    print(f"{count} replicas answer at http://{host}:{port}", flush=True)
    try:
        threading.Event().wait()
    finally:
        serve.shutdown()
