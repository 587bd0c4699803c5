"""transformers' scheduler, which lets requests in only when cache and experts have room for all of them."""

import logging
import time
from collections.abc import Callable, Hashable, Iterator
from contextlib import ExitStack
from functools import lru_cache, partial

from transformers.generation.continuous_batching.requests import RequestState
from transformers.generation.continuous_batching.scheduler import FIFOScheduler

from .admission import Admission, Waiting
from .catalog import ModelCatalog
from .expert_loading import ExpertLoading
from .expert_pool import ExpertPool
from .running_requests import RunningRequest
from .shared_cache import SharedCache

logger = logging.getLogger(__name__)

LOOK_AHEAD = 32
"""Waiting requests for which experts are read ahead."""
KNOWN_EXPERTS = 4096
"""Experts whose size is remembered."""


class ExpertScheduler(FIFOScheduler):
    """First the requests that run, then those that admission lets in.

    A request is let in when its whole answer and its experts fit beside all that run, so nothing that runs
    is ever put off for want of memory (S-LoRA's rule, one budget for both).
    """

    cache: SharedCache

    def __init__(
        self,
        cache: SharedCache,
        max_requests_per_batch: int,
        *,
        pool: ExpertPool,
        loading: ExpertLoading,
        admission: Admission,
        catalog: ModelCatalog,
        requests: dict[str, RunningRequest],
        gone: Callable[[str], None],
        failed: Callable[[str, Exception], None],
    ):
        """Schedule `requests`, which are listed by id.

        Args:
            cache: Shared with the pool.
            max_requests_per_batch: Requests that run at once.
            pool: Experts on the device.
            loading: Reads experts.
            admission: Orders the queue.
            catalog: Knows the ranks of experts that are not on the device.
            requests: Filled before a request is queued.
            gone: Told the id of each request that was cancelled, once it holds nothing any more.
            failed: Told the id of a request whose experts cannot be read.
        """
        super().__init__(cache, 0.0, max_requests_per_batch)
        self.pool, self.loading, self.admission = pool, loading, admission
        self._requests = requests
        # A version of an expert never changes, and every step asks again for all that wait.
        self.sectors_of_expert = lru_cache(KNOWN_EXPERTS)(partial(_sectors_of_expert, catalog, pool))
        self._gone, self._failed = gone, failed
        self.hits = 0
        self._admitted = 0
        self._set_aside = 0

    @property
    def running(self) -> int:
        """Requests that were let in."""
        return self._admitted

    def add_waiting_request(self, state: RequestState) -> None:
        """Queue a request."""
        super().add_waiting_request(state)
        self.admission.arrived(self._requests[state.request_id].waiting)

    def finish_request(self, request_id: str) -> None:
        """Free what a request held."""
        super().finish_request(request_id)
        self.let_go(request_id)

    def clear_cancelled_requests(self) -> list[RequestState]:
        """Free what cancelled requests held."""
        states = super().clear_cancelled_requests()
        for state in states:
            self._gone(state.request_id)
        return states

    def let_go(self, request_id: str) -> None:
        """Unpin the experts of a request that ended, if it was let in."""
        one = self._requests.get(request_id)
        if one is None or not one.admitted:
            return
        one.admitted = False
        self._admitted -= 1
        self._set_aside -= one.sectors
        for key in one.waiting.experts:
            self.pool.leave(key)

    def waiting_in_order(self) -> Iterator[Waiting]:
        """Yield queued requests that were not let in yet, in order of arrival."""
        waiting = (self._requests[request_id] for request_id in self.waiting_requests_order)
        return (one.waiting for one in waiting if not one.admitted)

    def _get_waiting_candidates(self) -> list[RequestState]:
        waiting = list(self.waiting_in_order())
        self.loading.keep_only({key for one in waiting for key in one.experts})
        if waiting:
            self._let_in(waiting)
        return [
            self.waiting_requests[request_id]
            for request_id in self.waiting_requests_order
            if self._requests[request_id].admitted
        ]

    def _let_in(self, waiting: list[Waiting]) -> None:
        seats = self.max_requests_per_batch - self._admitted
        resident = self.pool.resident
        ordered = self.admission.order(waiting, time.perf_counter(), seats, resident.__contains__)
        for place, one in enumerate(ordered[: max(LOOK_AHEAD, seats)]):
            for key in one.experts:
                if key not in resident:
                    self.loading.want(key, at_once=place == 0)
        for one in ordered:
            if seats == 0 or not self._fits(one):
                break
            if self._bring_experts(one):
                self._admit(one)
                seats -= 1

    def _fits(self, one: Waiting) -> bool:
        """Whether answer and experts fit beside all that was let in, once idle experts are gone."""
        pool = self.pool
        return pool.sectors_pinned + self._set_aside + self.sectors_for(one) <= pool.capacity

    def sectors_for(self, one: Waiting) -> int:
        """Sectors that a request takes beyond the experts that others hold already."""
        own = 0
        for key in one.experts:
            held = self.pool.resident.get(key)
            if held is None:
                own += self.sectors_of_expert(key)
            elif not held.users:
                own += len(held.sectors)
        return own + self.cache.sectors_for(one.cost)

    def _bring_experts(self, one: Waiting) -> bool:
        """Load what is missing; False if it was not read yet."""
        missing = [key for key in one.experts if key not in self.pool.resident]
        if not all(map(self.loading.is_read, missing)):
            return False
        # Pinned one by one, so that loading the next does not evict an earlier one of the same request.
        with ExitStack() as pinned:
            for key in sorted(one.experts, key=lambda key: key in missing):
                if key in missing and not self._load(one, key):
                    return False
                self.pool.use(key)
                pinned.callback(self.pool.leave, key)
            pinned.pop_all()
        self.hits += bool(one.experts) and not missing
        return True

    def _load(self, one: Waiting, key: Hashable) -> bool:
        try:
            modules, packed = self.loading.take(key)
            return self.pool.load(key, modules, packed)
        # Whatever is wrong with an expert, it is the request's that wants it and nobody else's.
        except Exception as error:
            logger.warning("expert %s could not be loaded", key, exc_info=True)
            self._failed(one.request_id, error)
            return False

    def _admit(self, waiting: Waiting) -> None:
        one = self._requests[waiting.request_id]
        one.admitted = True
        one.sectors = self.cache.sectors_for(waiting.cost)
        self._admitted += 1
        self._set_aside += one.sectors
        self.admission.admitted(waiting)


def _sectors_of_expert(catalog: ModelCatalog, pool: ExpertPool, key: Hashable) -> int:
    ranks = catalog.ranks(key)
    return pool.sectors_for(list(ranks), list(ranks.values()))
