"""Which waiting request may run next: order, fairness between tenants, early abort.

First come, first served is the plain rule. Under overload it lets all requests wait too long; S-LoRA's early
abort (Sheng et al. 2023, arXiv:2311.03285, section 5.4) drops those whose first token would come too late
anyway, and serves the newest first while more requests arrive than fit a batch.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Policy = Literal["fcfs", "abort"]


@dataclass(frozen=True, kw_only=True)
class AdmissionSettings:
    """How requests are let in."""

    policy: Policy = "fcfs"
    """fcfs: first come, first served. abort: S-LoRA's early abort."""
    first_token_seconds: float = 6.0
    """Objective for the time to the first token, for `abort`."""
    first_step_seconds: float = 0.5
    """Assumed time from being let in to the first token, for `abort`."""
    group_window: int = 64
    """Requests for experts that are on the device may overtake at most so many others; 0 keeps the order."""
    patience_seconds: float = 2.0
    """A request that waited longer is not overtaken."""


@dataclass(frozen=True)
class Waiting:
    """A queued request, as admission sees it."""

    request_id: str
    tenant: str
    arrived: float
    """In seconds, by any steady clock."""
    cost: int
    """Tokens that it may take: prompt and answer."""
    experts: Sequence[Any] = ()
    """Keys of its experts."""


@dataclass
class Admission:
    """Orders the queue; tenants that got fewer tokens go first (virtual token counter, arXiv:2401.00588)."""

    settings: AdmissionSettings = field(default_factory=AdmissionSettings)
    served: dict[str, float] = field(default_factory=dict)
    """Tokens granted to each tenant with requests, counted from the least served one when it came."""
    _requests: Counter[str] = field(default_factory=Counter)
    _arrivals: int = 0
    _arrivals_a_step: float = 0.0

    def arrived(self, waiting: Waiting) -> None:
        """Take note of a new request."""
        self._arrivals += 1
        self._requests[waiting.tenant] += 1
        self.served.setdefault(waiting.tenant, min(self.served.values(), default=0.0))

    def admitted(self, waiting: Waiting) -> None:
        """Take note that a request is let in."""
        self.served[waiting.tenant] = self.served.get(waiting.tenant, 0.0) + waiting.cost

    def left(self, waiting: Waiting) -> None:
        """Take note that a request ended; a tenant without any is forgotten: being away earns no credit."""
        self._requests[waiting.tenant] -= 1
        if self._requests[waiting.tenant] <= 0:
            del self._requests[waiting.tenant]
            self.served.pop(waiting.tenant, None)

    def step(self) -> None:
        """A step of the engine begins: average the arrivals between steps, as S-LoRA does."""
        self._arrivals_a_step = 0.7 * self._arrivals_a_step + 0.3 * self._arrivals
        self._arrivals = 0

    def too_late(self, waiting: Iterable[Waiting], now: float) -> list[Waiting]:
        """Requests to drop, since their first token would come after the objective."""
        if self.settings.policy != "abort":
            return []
        latest = self.settings.first_token_seconds - self.settings.first_step_seconds
        return [one for one in waiting if now - one.arrived >= latest]

    def order(
        self, waiting: Sequence[Waiting], now: float, free_seats: int, is_resident: Callable[[Any], bool]
    ) -> list[Waiting]:
        """Return the queue in the order in which requests should be let in.

        Args:
            waiting: In order of arrival.
            now: The time.
            free_seats: How many more requests could run.
            is_resident: Whether an expert is on the device.
        """
        newest_first = self.settings.policy == "abort" and self._arrivals_a_step >= max(free_seats, 1)
        ordered = list(reversed(waiting)) if newest_first else list(waiting)
        if len({one.tenant for one in ordered}) > 1:
            ordered = self._by_tenant(ordered)
        window = self.settings.group_window
        if window and not newest_first:
            first, rest = ordered[:window], ordered[window:]
            patient = self.settings.patience_seconds
            first.sort(key=lambda one: now - one.arrived < patient and not all(map(is_resident, one.experts)))
            ordered = first + rest
        return ordered

    def _by_tenant(self, ordered: list[Waiting]) -> list[Waiting]:
        """Next comes the first request of the tenant that would have got the fewest tokens."""
        queues: dict[str, list[Waiting]] = {}
        for one in ordered:
            queues.setdefault(one.tenant, []).append(one)
        tokens = {tenant: self.served.get(tenant, 0.0) for tenant in queues}
        result = []
        for queue in queues.values():
            queue.reverse()
        while queues:
            tenant = min(queues, key=lambda name: tokens[name])
            one = queues[tenant].pop()
            tokens[tenant] += one.cost
            result.append(one)
            if not queues[tenant]:
                del queues[tenant]
        return result
