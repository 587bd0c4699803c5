"""Events of one request, from the thread that answers it to the one that reads."""

import queue
from collections.abc import Iterator

from .requests import FinishEvent, TokenEvent


class EventStream:
    """Hands events to one reader; safe in any thread."""

    def __init__(self) -> None:
        """Begin without events."""
        self._events: queue.SimpleQueue[TokenEvent | FinishEvent] = queue.SimpleQueue()

    def put(self, event: TokenEvent | FinishEvent) -> None:
        """Add an event; for whoever answers."""
        self._events.put(event)

    def events(self, timeout: float | None = None) -> Iterator[TokenEvent | FinishEvent]:
        """Yield what happens, as `Ticket.events` says."""
        while True:
            try:
                event = self._events.get(timeout=timeout)
            except queue.Empty:
                raise TimeoutError(f"no token within {timeout} seconds") from None
            yield event
            if isinstance(event, FinishEvent):
                return
