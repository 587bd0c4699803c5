"""transformers' continuous batching with our cache, scheduler and sampling in their places.

Nothing of the loop, the paged cache or the batch tensors is written anew; a few methods are overridden.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from torch import Tensor
from transformers import ContinuousBatchingConfig, GenerationConfig
from transformers.generation.continuous_batching.continuous_api import (
    ContinuousBatchingManager,
    ContinuousBatchProcessor,
    OutputRouter,
)
from transformers.generation.continuous_batching.input_outputs import ContinuousBatchingIOs
from transformers.generation.continuous_batching.model_runner import ModelRunner
from transformers.generation.continuous_batching.requests import (
    FutureRequestState,
    GenerationOutput,
    RequestState,
    RequestStatus,
)

from .expert_scheduler import ExpertScheduler
from .running_requests import RunningRequest
from .serving_model import ServingModel
from .shared_cache import SharedCache

logger = logging.getLogger(__name__)

MOST_FAILURES = 10
"""Batches that may fail one after the other before the loop stops."""


@dataclass(frozen=True)
class LoopHooks:
    """What the loop tells its owner, always from its own thread."""

    before_batch: Callable[[], None]
    """A step begins."""
    choose: Callable[[Tensor, list[RunningRequest], list[int]], Tensor]
    """Choose tokens: logits (row, vocabulary), the request of each row, and its number in the batch."""
    ended: Callable[[RunningRequest, str | None], None]
    """A request got its last token, or failed with an error."""
    make_scheduler: Callable[[SharedCache, int], ExpertScheduler]
    """Build pool and scheduler around a new cache, for so many requests at once."""


class EventRouter(OutputRouter):
    """Ends the tickets of requests that the loop is through with."""

    def __init__(
        self, requests: dict[str, RunningRequest], ended: Callable[[RunningRequest, str | None], None]
    ):
        """Look requests up in `requests`."""
        super().__init__()
        self._requests, self._ended = requests, ended

    def deliver(self, output: GenerationOutput) -> None:
        """End one request."""
        if (one := self._requests.get(output.request_id)) is not None:
            self._ended(one, output.error if output.status == RequestStatus.FAILED else None)

    def deliver_batch(self, outputs: list[GenerationOutput]) -> None:
        """End several requests."""
        for output in outputs:
            self.deliver(output)


class ServingRunner(ModelRunner):
    """Chooses tokens by each request's own settings."""

    def __init__(self, choose: Callable[[Tensor], Tensor], **kwargs: Any):
        """Take what a model runner takes, and what turns logits (row, vocabulary) into tokens."""
        super().__init__(**kwargs)
        self._choose = choose

    def _sample(self, scores: Tensor, output_ids: Tensor) -> None:
        tokens = self._choose(scores[0])
        output_ids[0, : len(tokens)].copy_(tokens)


class ServingProcessor(ContinuousBatchProcessor):
    """Tells the model what each request of a batch runs on."""

    def __init__(
        self, model: ServingModel, requests: dict[str, RunningRequest], hooks: LoopHooks, **kwargs: Any
    ):
        """Take what a batch processor takes."""
        super().__init__(**kwargs)
        self._model, self._requests, self._hooks = model, requests, hooks
        self.model_runner = ServingRunner(
            self._choose,
            logit_processor=self.logit_processor,
            cb_config=self.cb_config,
            cache=self.cache,
            inputs_and_outputs=self.inputs_and_outputs,
            do_sample=False,
            return_logprobs=False,
        )

    def prepare_next_batch(self) -> bool:
        """Prepare a batch, and the model for it."""
        self._hooks.before_batch()
        if not super().prepare_next_batch():
            return False
        batch = self._batch
        self._model.prepare(
            [self._requests[future.state.request_id].served for future in batch],
            [future.query_length for future in batch],
            [future.state.position_offset for future in batch],
        )
        return True

    @property
    def _batch(self) -> list[FutureRequestState]:
        # Batches are not prepared ahead: the next one depends on what admission says after this one.
        return cast(ContinuousBatchingIOs, self.inputs_and_outputs).requests_in_batch

    def _choose(self, logits: Tensor) -> Tensor:
        batch = self._batch
        numbers = [number for number, future in enumerate(batch) if future.has_new_token]
        requests = [self._requests[batch[number].state.request_id] for number in numbers]
        return self._hooks.choose(logits[: len(numbers)], requests, numbers)


class ServingLoop(ContinuousBatchingManager):
    """Runs the batches in a thread of its own, and outlives a batch that fails."""

    batch_processor: ServingProcessor | None
    model: ServingModel

    def __init__(
        self,
        model: ServingModel,
        config: ContinuousBatchingConfig,
        requests: dict[str, RunningRequest],
        hooks: LoopHooks,
    ):
        """Serve `model`; `requests` lists the running ones by id."""
        greedy = GenerationConfig(do_sample=False, eos_token_id=-1)
        super().__init__(cast(Any, model), greedy, config)
        self.output_router = EventRouter(requests, hooks.ended)
        self._requests, self._hooks = requests, hooks
        self._ran_batch, self._failures = False, 0

    def switch_to_cb_friendly_attn(self, model: Any, auto_switch_to_flash: bool = True) -> None:
        """Keep the attention that the serving model brought."""

    def wake_up(self) -> None:
        """Let the loop look for work, if it waits for some."""
        self._wake_up_loop.set()

    def submit(self, state: RequestState) -> None:
        """Queue a request."""
        self.input_queue.put(state)
        self.wake_up()

    def make_processor(self) -> ServingProcessor:
        """Build cache, scheduler and processor before the loop starts."""
        if self.batch_processor is not None:
            return self.batch_processor
        config = self.continuous_batching_config
        cache = SharedCache(
            config=self.model.config.get_text_config(),
            continuous_batching_config=config,
            device=self.model.device,
            distributed_helper=self.distributed_helper,
            dtype=self.model.dtype,
            model_supports_logits_to_keep=True,
        )
        config.num_blocks, config.max_batch_tokens = cache.num_blocks, cache.max_batch_tokens
        scheduler = self._hooks.make_scheduler(cache, cast(int, config.max_requests_per_batch))
        self.batch_processor = ServingProcessor(
            self.model,
            self._requests,
            self._hooks,
            cache=cache,
            config=self.model.config.get_text_config(),
            generation_config=self.generation_config,
            continuous_batching_config=config,
            logit_processor=self.logit_processor,
            input_queue=self.input_queue,
            cancel_queue=self.cancel_queue,
            output_router=self.output_router,
            background_thread_status=self.background_thread_status,
            model_device=self.model.device,
            model_dtype=self.model.dtype,
            scheduler=scheduler,
            distributed_helper=self.distributed_helper,
        )
        return self.batch_processor

    def _create_batch_processor(self) -> ContinuousBatchProcessor:
        return self.make_processor()

    def _generation_loop_body(self, batch_processor: ContinuousBatchProcessor, bootstrapping: bool) -> bool:
        self._ran_batch = False
        try:
            goes_on = super()._generation_loop_body(batch_processor, bootstrapping)
            self._failures = 0
            return goes_on
        # Whatever went wrong, a server goes on with the requests that it did not happen to.
        except Exception as error:
            if self._ran_batch:
                logger.exception("a batch failed; its requests end, the others go on")
                batch_processor.handle_batch_error(error)
            else:
                logger.exception("no batch could be prepared; all requests end")
                batch_processor.fail_all_requests(error)
            self._failures += 1
            if self._failures < MOST_FAILURES:
                return True
            # What fails every time, such as a lost device, will not mend itself.
            raise

    def _generation_step(self) -> None:
        self._ran_batch = True
        super()._generation_step()
