"""What every request passes before it reaches a route: its key, its limits, the size of its body."""

from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

from fastapi import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .api_error import ApiError
from .api_settings import ApiSettings
from .keys import ANYONE, Client, Keys
from .limits import Limits
from .metrics import ApiMetrics

OPEN_PATHS = frozenset({"/", "/health"})
"""What needs no key: it tells nothing of experts or requests."""
COUNTED_PREFIXES = ("/v1/completions", "/v1/chat/", "/v1/experts")
"""What counts for a key's limits, where it is more than reading."""


class Gate:
    """ASGI middleware around the app; routes find who asks in the request's state, as `client`."""

    def __init__(self, app: ASGIApp, keys: Keys, settings: ApiSettings, metrics: ApiMetrics):
        """Stand before an app."""
        self.app, self.keys, self.settings, self.metrics = app, keys, settings, metrics
        self.limits = Limits(open_limit=settings.open_limit)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request pass, or answer it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        answer = _Answer(send)
        try:
            client = self._identify(scope)
            scope.setdefault("state", {})["client"] = client
            counted = scope["method"] != "GET" and scope["path"].startswith(COUNTED_PREFIXES)
            with self.limits.request(client) if counted else nullcontext():
                await self.app(scope, self._bounded(scope, receive), answer.send)
        except ApiError as error:
            await error.response()(scope, receive, answer.send)
        finally:
            route = scope.get("route")
            self.metrics.answered(getattr(route, "path", "other"), answer.status)

    def _identify(self, scope: Scope) -> Client:
        if scope["path"] in OPEN_PATHS:
            return ANYONE
        client = self.keys.find(_headers(scope).get("authorization"))
        if client is None:
            raise ApiError(
                401,
                "No API key of this server was sent; set it as `Authorization: Bearer KEY`.",
                code="invalid_api_key",
            )
        return client

    def _bounded(self, scope: Scope, receive: Receive) -> Receive:
        upload = scope["path"].startswith("/v1/experts")
        limit = self.settings.upload_limit if upload else self.settings.body_limit
        message = f"The body is larger than {limit:,} bytes, the most that is allowed."
        length = _headers(scope).get("content-length", "")
        if length.isdigit() and int(length) > limit:
            raise ApiError(413, message)
        seen = 0

        async def receive_bounded() -> Message:
            nonlocal seen
            part = await receive()
            seen += len(part.get("body", b""))
            if seen > limit:
                # Of all exceptions, FastAPI lets only this one out of the reading of a body.
                raise HTTPException(413, message)
            return part

        return receive_bounded


class _Answer:
    """Sends an answer and remembers its status."""

    def __init__(self, send: Send):
        self._send = send
        self.status = 0

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        await self._send(message)


def _headers(scope: Scope) -> Mapping[str, Any]:
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
