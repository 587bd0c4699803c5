"""Sends a trace to an engine at its own times, whether it keeps up or not, and notes when tokens come."""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from ...experts.errors import FinLoraError
from ...moe.serving.requests import (
    BusyError,
    FinishEvent,
    GenerationRequest,
    ServingEngine,
    Ticket,
)

REFUSED = "refused"
"""How a request ended that the engine's full queue did not take."""
STALL_SECONDS = 300.0
"""Seconds without any event after which a load test gives up."""


@dataclass
class Sent:
    """What became of one request; times are seconds after the start of the trace."""

    due: float
    """When the trace sends it; latencies count from here, so a sender that is late hides nothing."""
    prompt_tokens: int
    model: str
    sent: float = 0.0
    first_token: float | None = None
    finished: float | None = None
    reason: str = ""
    new_tokens: int = 0
    tokens: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class LoadRun:
    """A finished trace."""

    requests: list[Sent]
    wall_seconds: float
    """From the first second of the trace until everything has ended."""
    cpu_seconds: float
    """Processor time of this process meanwhile; hardly changed by what else runs on the machine."""


def run_load(
    engine: ServingEngine,
    requests: Sequence[tuple[float, GenerationRequest]],
    *,
    stall: float = STALL_SECONDS,
) -> LoadRun:
    """Send requests at their times (an open loop: none waits for an answer), and wait until all have ended.

    Args:
        engine: Answers.
        requests: Seconds after the start, rising, and what is sent then.
        stall: Seconds without any event after which the engine counts as hung.

    Raises:
        FinLoraError: If the engine hangs.
    """
    sent = [Sent(due, len(request.prompt_ids), str(request.model), tokens=[]) for due, request in requests]
    readers: list[_Reader] = []
    cpu, start = time.process_time(), time.perf_counter()
    for one, (due, request) in zip(sent, requests, strict=True):
        if (wait := start + due - time.perf_counter()) > 0:
            time.sleep(wait)
        one.sent = time.perf_counter() - start
        try:
            ticket = engine.submit(request)
        except BusyError:
            one.reason, one.finished = REFUSED, time.perf_counter() - start
            continue
        readers.append(_Reader(ticket, one, start, stall))
        readers[-1].start()
    for reader in readers:
        reader.join()
    wall, cpu = time.perf_counter() - start, time.process_time() - cpu
    if hung := sum(reader.hung for reader in readers):
        raise FinLoraError(f"{hung} requests saw nothing happen for {stall:.0f} s; the engine hangs.")
    return LoadRun(sent, wall, cpu)


class _Reader(threading.Thread):
    """Follows one request."""

    def __init__(self, ticket: Ticket, sent: Sent, start: float, stall: float):
        super().__init__(daemon=True)
        self.ticket, self.sent, self.start_time, self.stall = ticket, sent, start, stall
        self.hung = False

    def run(self) -> None:
        sent = self.sent
        try:
            for event in self.ticket.events(timeout=self.stall):
                now = time.perf_counter() - self.start_time
                if isinstance(event, FinishEvent):
                    sent.finished, sent.reason = now, event.reason
                    continue
                if sent.first_token is None:
                    sent.first_token = now
                sent.tokens.append(event.token_id)
                sent.new_tokens += 1
        except TimeoutError:
            self.hung = True


def warm_up(engine: ServingEngine, requests: Sequence[GenerationRequest]) -> None:
    """Send some requests at once and wait for them, so that a trace does not pay for first times.

    Raises:
        FinLoraError: If one fails.
    """
    run = run_load(engine, [(0.0, request) for request in requests])
    if wrong := [one.reason for one in run.requests if one.reason not in ("stop", "length")]:
        raise FinLoraError(f"{len(wrong)} requests of the warm-up ended as {wrong[0]}.")
