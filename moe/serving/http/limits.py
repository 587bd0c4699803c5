"""How many requests a key, and all keys together, may have a minute and at once."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from .api_error import ApiError
from .keys import Client

MINUTE = 60.0


@dataclass
class _Use:
    """What a client has used."""

    tokens: float
    """Requests that it may still begin now; they come back evenly over the minute."""
    at: float
    """When `tokens` was counted."""
    running: int = 0


class Limits:
    """Counts requests; for the event loop's thread alone."""

    def __init__(self, *, open_limit: int, clock: Callable[[], float] = time.monotonic):
        """Allow `open_limit` requests at once over all clients."""
        self._open_limit, self._clock = open_limit, clock
        self._open = 0
        self._uses: dict[str, _Use] = {}

    @contextmanager
    def request(self, client: Client) -> Iterator[None]:
        """Count a request from its beginning to its end.

        Raises:
            ApiError: 429 with the time after which to come again.
        """
        use = self._refill(client)
        self._check(client, use)
        use.tokens -= 1
        use.running += 1
        self._open += 1
        try:
            yield
        finally:
            use.running -= 1
            self._open -= 1

    def _refill(self, client: Client) -> _Use:
        now = self._clock()
        most = client.requests_per_minute or float("inf")
        use = self._uses.setdefault(client.name, _Use(tokens=max(1.0, most), at=now))
        if most < float("inf"):
            use.tokens = min(max(1.0, most), use.tokens + (now - use.at) * most / MINUTE)
        use.at = now
        return use

    def _check(self, client: Client, use: _Use) -> None:
        if client.requests_per_minute is not None and use.tokens < 1:
            raise ApiError(
                429,
                f"This key may begin {client.requests_per_minute:g} requests a minute.",
                kind="rate_limit_error",
                code="rate_limit_exceeded",
                retry_after=(1 - use.tokens) * MINUTE / client.requests_per_minute,
            )
        if client.concurrent is not None and use.running >= client.concurrent:
            raise ApiError(
                429,
                f"This key may have {client.concurrent} requests running at once.",
                kind="rate_limit_error",
                code="too_many_at_once",
                retry_after=1.0,
            )
        if self._open >= self._open_limit:
            raise ApiError(
                429,
                f"{self._open_limit:,} requests are running or waiting, which is the most that may.",
                kind="rate_limit_error",
                code="server_busy",
                retry_after=1.0,
            )
