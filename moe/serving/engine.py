"""The serving engine: takes requests for any model at any time, and answers them all in shared batches."""

import heapq
import itertools
import logging
import queue
import threading
import time
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from functools import partial

from torch import Tensor
from transformers import ContinuousBatchingConfig
from transformers.generation.continuous_batching.requests import RequestState

from ...experts.base_model import Base
from .admission import Admission, AdmissionSettings, Waiting
from .batch_loop import LoopHooks, ServingLoop
from .catalog import ModelCatalog
from .expert_loading import ExpertLoading
from .expert_pool import ExpertPool
from .expert_scheduler import ExpertScheduler
from .plan_builder import Served
from .request_check import check_request
from .requests import BusyError, EngineState, FinishReason, GenerationRequest, InvalidRequestError, TokenEvent
from .running_requests import EngineTicket, RunningRequest
from .sampling import Sampling, choose, tokens_of
from .served_mixture import ServedMixture
from .served_weights import ServedWeights
from .serving_model import ServingModel
from .shared_cache import SharedCache

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class EngineSettings:
    """How large the engine is."""

    max_requests: int = 64
    """Requests that run at once."""
    max_batch_tokens: int = 512
    """New tokens in one pass; longer prompts come in parts."""
    memory_pages: int = 2048
    """Pages of `page_tokens` tokens for keys and values, and for experts."""
    page_tokens: int = 16
    slice_width: int = 8
    """Ranks that experts are cut into."""
    host_memory_mib: int = 1024
    """MiB of host memory for experts that were used before; those used last stay."""
    max_queue: int = 1024
    """Requests that may wait; more are refused."""
    two_pass_mixtures: bool = True
    """Whether mixtures may run the base first, which doubles what a token takes of the cache."""
    looking_back: bool = True
    """Whether routers may look back, which takes one more layer of the cache."""
    admission: AdmissionSettings = field(default_factory=AdmissionSettings)


class Engine:
    """Answers requests for the base, experts, sets of experts and mixtures in shared batches.

    Satisfies `ServingEngine`.
    """

    def __init__(self, base: Base, catalog: ModelCatalog, settings: EngineSettings | None = None):
        """Start the engine's thread; the base belongs to the engine from now on.

        Raises:
            FinLoraError: If the base cannot be served.
        """
        self.settings = settings = settings or EngineSettings()
        self.base, self.catalog = base, catalog
        self.model = ServingModel(
            base, scaling_pass=settings.two_pass_mixtures, router_place=settings.looking_back
        )
        self._requests: dict[str, RunningRequest] = {}
        self._ids = itertools.count()
        self._lock = threading.Lock()
        self._generated = self._aborted = 0
        self._cancelled: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._new_deadlines: queue.SimpleQueue[tuple[float, str]] = queue.SimpleQueue()
        self._deadlines: list[tuple[float, str]] = []
        self._closed = False
        hooks = LoopHooks(self._before_batch, self._choose, self._ended, self._make_scheduler)
        config = ContinuousBatchingConfig(
            page_size=settings.page_tokens,
            num_blocks=settings.memory_pages,
            max_batch_tokens=settings.max_batch_tokens,
            max_requests_per_batch=settings.max_requests,
            max_blocks_per_request=0,
            allow_block_sharing=False,
            use_async_batching=False,
            use_cuda_graph=False,
        )
        self._loop = ServingLoop(self.model, config, self._requests, hooks)
        self._loop.make_processor()
        self._loop.start()

    def submit(self, request: GenerationRequest) -> EngineTicket:
        """Queue a request, as `ServingEngine.submit` says."""
        check_request(request, self.model)
        # Outside of the lock, since it may read a router.
        served = self.catalog.resolve(request.model)
        try:
            if isinstance(served, ServedMixture):
                self.model.check(served)
            with self._lock:
                self._check_open()
                return self._queue(request, served)
        except BaseException:
            self.catalog.release(served)
            raise

    def _check_open(self) -> None:
        if self._closed or not self._loop.is_running():
            raise BusyError("The engine has stopped and takes no more requests; start the server again.")
        if len(self._requests) - self._scheduler.running >= self.settings.max_queue:
            raise BusyError(
                f"{self.settings.max_queue:,} requests are waiting already, which is the most that may; try "
                "again later."
            )

    def _queue(self, request: GenerationRequest, served: Served) -> EngineTicket:
        request_id = f"request-{next(self._ids)}"
        end_tokens = (
            frozenset() if request.ignore_eos else frozenset(self._end_tokens() | set(request.stop_token_ids))
        )
        cost = len(request.prompt_ids) + request.max_new_tokens
        waiting = Waiting(
            request_id, request.tenant, time.perf_counter(), cost, tuple(dict.fromkeys(served.experts))
        )
        self._check_room(waiting)
        one = RunningRequest(
            request_id,
            request,
            served,
            EngineTicket(partial(self._cancel, request_id)),
            Sampling(request),
            waiting,
            end_tokens,
            version=", ".join(map(str, served.experts)) or self.base.name,
        )
        self._requests[request_id] = one
        self._loop.submit(
            RequestState(
                request_id,
                list(request.prompt_ids),
                max_new_tokens=request.max_new_tokens,
                eos_token_id=list(end_tokens),
            )
        )
        if request.deadline_seconds is not None:
            self._new_deadlines.put((waiting.arrived + request.deadline_seconds, request_id))
        return one.ticket

    def _cancel(self, request_id: str) -> None:
        self._cancelled.put(request_id)
        self._loop.wake_up()

    def _check_room(self, waiting: Waiting) -> None:
        scheduler = self._scheduler
        pool, cache = scheduler.pool, scheduler.cache
        experts = sum(scheduler.sectors_of_expert(key) for key in waiting.experts)
        needed = experts + cache.sectors_for(waiting.cost)
        if needed > pool.capacity:
            raise InvalidRequestError(
                "max_new_tokens",
                f"Prompt, answer and experts take {needed:,} pages of memory, but this server has "
                f"{pool.capacity:,}; ask for fewer tokens or experts, or start it with more memory_pages.",
            )

    def state(self) -> EngineState:
        """Return counts for metrics."""
        scheduler = self._scheduler
        pool, cache = scheduler.pool, scheduler.cache
        resident = {
            str(key): len(one.sectors) * cache.bytes_per_sector for key, one in list(pool.resident.items())
        }
        free, experts = cache.free_sectors, pool.sectors_used
        return EngineState(
            queued=len(self._requests) - scheduler.running,
            running=scheduler.running,
            free_pages=free,
            total_pages=pool.capacity,
            cache_pages=pool.capacity - free - experts,
            expert_pages=experts,
            resident=resident,
            loads=pool.counts.loads,
            hits=scheduler.hits,
            evictions=pool.counts.evictions,
            aborted=self._aborted,
            generated_tokens=self._generated,
        )

    def close(self) -> None:
        """Stop; requests that still run end as cancelled."""
        with self._lock:
            self._closed = True
        self._loop.stop(hard_stop=True)
        self._scheduler.loading.close()
        for one in list(self._requests.values()):
            one.finish("cancelled", "The server stops.")
            self._forget(one.request_id)

    def _end_tokens(self) -> set[int]:
        end = self.model.generation_config.eos_token_id
        if end is None:
            end = self.model.config.get_text_config().eos_token_id
        return set() if end is None else {end} if isinstance(end, int) else set(end)

    def _make_scheduler(self, cache: SharedCache, max_requests: int) -> ExpertScheduler:
        layout = self.model.lay_out(self.settings.slice_width)
        pool = cache.experts = ExpertPool(cache, layout)
        self.model.use_pool(pool)
        loading = ExpertLoading(
            self.catalog,
            layout,
            pool.pages.dtype,
            ahead=self.settings.max_requests,
            kept_bytes=self.settings.host_memory_mib * 2**20,
            ready=self._loop.wake_up,
        )
        self._scheduler = ExpertScheduler(
            cache,
            max_requests,
            pool=pool,
            loading=loading,
            admission=Admission(self.settings.admission),
            catalog=self.catalog,
            requests=self._requests,
            gone=self._forget,
            failed=self._cannot_read,
        )
        return self._scheduler

    def _cannot_read(self, request_id: str, error: Exception) -> None:
        self._give_up(request_id, "failed", f"An expert of this request cannot be read: {error}")

    # What follows runs in the loop's thread.

    def _before_batch(self) -> None:
        """Give up what was cancelled, what is over its deadline, and what admission drops."""
        while True:
            try:
                self._give_up(self._cancelled.get_nowait(), "cancelled", "")
            except queue.Empty:
                break
        now = time.perf_counter()
        self._give_up_late(now)
        scheduler = self._scheduler
        scheduler.admission.step()
        for waiting in scheduler.admission.too_late(scheduler.waiting_in_order(), now):
            self._aborted += 1
            busy = "The server is too busy to answer in time; try again later."
            self._give_up(waiting.request_id, "aborted", busy)

    def _give_up_late(self, now: float) -> None:
        """End requests whose deadline has come, and forget the deadlines of those that ended before."""
        while not self._new_deadlines.empty():
            heapq.heappush(self._deadlines, self._new_deadlines.get())
        while self._deadlines and self._deadlines[0][0] <= now:
            _, request_id = heapq.heappop(self._deadlines)
            self._give_up(request_id, "deadline", "The answer was not complete at the request's deadline.")
        if len(self._deadlines) > 2 * len(self._requests) + 100:
            self._deadlines = [one for one in self._deadlines if one[1] in self._requests]
            heapq.heapify(self._deadlines)

    def _choose(self, logits: Tensor, requests: list[RunningRequest], numbers: list[int]) -> Tensor:
        choices = choose(logits, [one.sampling for one in requests])
        for one, choice, number in zip(requests, choices, numbers, strict=True):
            if not choice.finite:
                self._quarantine(one)
                continue
            if choice.problem is not None:
                self._give_up(one.request_id, "failed", choice.problem)
                continue
            self._generated += 1
            one.token(
                TokenEvent(
                    token_id=choice.token,
                    logprob=choice.logprob,
                    top_logprobs=choice.top_logprobs,
                    routing=self._routing(one.served, number) if one.request.report_routing else None,
                )
            )
        return tokens_of(choices, logits.device)

    def _routing(self, served: Served, number: int) -> dict[str, float]:
        """Weight by expert of the last token of a request, the mean over layers."""
        if isinstance(served, ServedMixture):
            weights: Sequence[float] = self.model.last_scalings[number][-1].mean(dim=0).tolist()
        else:
            weights = served.weights
        return {str(key): weight for key, weight in zip(served.experts, weights, strict=True)}

    def _quarantine(self, one: RunningRequest) -> None:
        """Find out which expert of a request made numbers that are not finite, and end the request."""
        keys: list[Hashable] = list(one.waiting.experts)
        # One expert as it is, so it is the cause; with other weights the request may be.
        alone = isinstance(one.served, ServedWeights) and list(one.served.weights) == [1.0]
        wrong = self._scheduler.pool.not_finite(keys) or (keys if alone else [])
        for key in wrong:
            try:
                self.catalog.quarantine(key, "its answer was not a finite number")
            except Exception:
                logger.exception("expert %s could not be put into quarantine", key)
        named = ", ".join(map(str, wrong or keys)) or "the base"
        cause = named if len(wrong) == 1 or not keys else f"one of {named}"
        message = f"The model made numbers that are not finite; the cause is {cause}."
        self._give_up(one.request_id, "failed", message)

    def _give_up(self, request_id: str, reason: FinishReason, message: str) -> None:
        """End a request before its last token; the scheduler frees what it holds in its next step."""
        if (one := self._requests.get(request_id)) is not None:
            one.finish(reason, message)
            self._scheduler.set_request_cancellation(request_id)

    def _ended(self, one: RunningRequest, error: str | None) -> None:
        if error is not None:
            one.finish("failed", "The batch of this request failed; send it again.")
        else:
            one.finish("stop" if one.last_token in one.end_tokens else "length")
        self._forget(one.request_id)

    def _forget(self, request_id: str) -> None:
        """Let go of all that a request holds."""
        self._scheduler.let_go(request_id)
        if (one := self._requests.pop(request_id, None)) is None:
            return
        self._scheduler.admission.left(one.waiting)
        try:
            self.catalog.release(one.served)
        # What the disk does must not end the requests of a whole batch.
        except Exception:
            logger.exception("the experts of %s could not be released", request_id)
