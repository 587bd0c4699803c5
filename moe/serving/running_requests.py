"""One request on its way through the engine, and the ticket by which its sender follows it."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from .admission import Waiting
from .event_stream import EventStream
from .plan_builder import Served
from .requests import FinishEvent, FinishReason, GenerationRequest, TokenEvent
from .sampling import Sampling


class EngineTicket(EventStream):
    """Hands events from the engine's thread to one reader."""

    def __init__(self, cancel: Callable[[], None]):
        """Call `cancel` when the reader gives up."""
        super().__init__()
        self._cancel = cancel

    def cancel(self) -> None:
        """Give the request up."""
        self._cancel()


@dataclass
class RunningRequest:
    """All that the engine knows of a request."""

    request_id: str
    request: GenerationRequest
    served: Served
    ticket: EngineTicket
    sampling: Sampling
    waiting: Waiting
    end_tokens: frozenset[int]
    version: str
    admitted: bool = False
    """Whether its experts are on the device and pinned, and its part of the cache is set aside."""
    sectors: int = 0
    """Set aside for its keys and values once admitted."""
    new_tokens: int = 0
    last_token: int | None = None
    first_token_seconds: float | None = None
    ended: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def token(self, event: TokenEvent) -> None:
        """Hand on a token."""
        if self.first_token_seconds is None:
            self.first_token_seconds = time.perf_counter() - self.waiting.arrived
        self.new_tokens += 1
        self.last_token = event.token_id
        self.ticket.put(event)

    def finish(self, reason: FinishReason, message: str = "") -> None:
        """Hand on the end, once."""
        with self._lock:
            if self.ended:
                return
            self.ended = True
        self.ticket.put(
            FinishEvent(
                reason=reason,
                message=message,
                prompt_tokens=len(self.request.prompt_ids),
                new_tokens=self.new_tokens,
                first_token_seconds=self.first_token_seconds,
                model_version=self.version,
            )
        )
