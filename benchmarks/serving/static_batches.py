"""A server as people build it from `generate`: one padded batch after the other, each run to its end.

It satisfies `ServingEngine`, so that a load test asks it exactly as it asks the engine. What PEFT offers for
several adapters stands in `peft_set_adapter` and `peft_mixed`.
"""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Int
from torch import Tensor
from transformers import StoppingCriteria, StoppingCriteriaList

from ...moe.serving.event_stream import EventStream
from ...moe.serving.requests import (
    EngineState,
    FinishEvent,
    FinishReason,
    GenerationRequest,
    TokenEvent,
)


@dataclass(eq=False)
class StaticTicket(EventStream):
    """One request of a static server."""

    request: GenerationRequest
    arrived: float = field(default_factory=time.perf_counter)
    new_tokens: int = 0
    first_token_seconds: float | None = None
    ended: bool = False
    cancelled: bool = False

    def __post_init__(self) -> None:
        """Begin without events."""
        super().__init__()

    def token(self, token: int) -> None:
        """Hand on a token, if it is still wanted; the last one ends the request."""
        if self.ended:
            return
        if self.first_token_seconds is None:
            self.first_token_seconds = time.perf_counter() - self.arrived
        self.new_tokens += 1
        self.put(TokenEvent(token_id=token))
        if self.cancelled:
            self.finish("cancelled")
        elif self.new_tokens == self.request.max_new_tokens:
            self.finish("length")

    def finish(self, reason: FinishReason, message: str = "") -> None:
        """Hand on the end, once."""
        if self.ended:
            return
        self.ended = True
        self.put(
            FinishEvent(
                reason=reason,
                message=message,
                prompt_tokens=len(self.request.prompt_ids),
                new_tokens=self.new_tokens,
                first_token_seconds=self.first_token_seconds,
                model_version=str(self.request.model),
            )
        )

    def cancel(self) -> None:
        """Give the request up."""
        self.cancelled = True


@runtime_checkable
class BatchModel(Protocol):
    """What a static server runs."""

    def choose(self, waiting: Sequence[StaticTicket]) -> list[StaticTicket]:
        """Pick the next batch from the queue, which is in order of arrival and not empty."""
        ...

    def generate(self, batch: Sequence[StaticTicket], inputs: dict[str, Any]) -> None:
        """Run `generate` on a batch with these arguments."""
        ...


class StaticBatches:
    """Runs batches one after the other, each to the end of its longest answer, greedily."""

    def __init__(self, model: BatchModel, padding: int):
        """Start the thread that answers.

        Args:
            model: Picks and runs batches.
            padding: Token on the left of shorter prompts.
        """
        self._model, self._padding = model, padding
        self._waiting: list[StaticTicket] = []
        self._running = self._generated = 0
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def submit(self, request: GenerationRequest) -> StaticTicket:
        """Queue a request; whoever asks has to name a model that there is."""
        ticket = StaticTicket(request)
        with self._changed:
            self._waiting.append(ticket)
            self._changed.notify()
        return ticket

    def state(self) -> EngineState:
        """Return counts; there are no pages."""
        with self._changed:
            return EngineState(
                queued=len(self._waiting),
                running=self._running,
                free_pages=0,
                total_pages=0,
                cache_pages=0,
                expert_pages=0,
                resident={},
                loads=0,
                hits=0,
                evictions=0,
                aborted=0,
                generated_tokens=self._generated,
            )

    def close(self) -> None:
        """Stop after the batch that runs; what waits ends as cancelled."""
        with self._changed:
            self._closed = True
            waiting, self._waiting = self._waiting, []
            self._changed.notify()
        for ticket in waiting:
            ticket.finish("cancelled", "The server stops.")
        self._thread.join()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                if self._closed:
                    return
                batch = self._model.choose(self._waiting)
                chosen = set(map(id, batch))
                self._waiting = [one for one in self._waiting if id(one) not in chosen]
                self._running = len(batch)
            try:
                with torch.no_grad():
                    self._model.generate(batch, self._inputs(batch))
            except Exception as error:
                for ticket in batch:
                    ticket.finish("failed", str(error))
            with self._changed:
                self._running = 0

    def _inputs(self, batch: Sequence[StaticTicket]) -> dict[str, Any]:
        ids, mask = padded([one.request.prompt_ids for one in batch], self._padding)
        return {
            "input_ids": ids,
            "attention_mask": mask,
            "max_new_tokens": max(one.request.max_new_tokens for one in batch),
            "do_sample": False,
            # No token is an end, as `ignore_eos` asks.
            "eos_token_id": None,
            "pad_token_id": self._padding,
            "stopping_criteria": StoppingCriteriaList([_Listener(batch, self._count)]),
        }

    def _count(self, tokens: int) -> None:
        with self._changed:
            self._generated += tokens


class _Listener(StoppingCriteria):
    """Hands every new token to its request."""

    def __init__(self, batch: Sequence[StaticTicket], count: Callable[[int], None]):
        self.batch, self.count = batch, count

    def __call__(self, input_ids: Int[Tensor, "row token"], scores: Any, **_: Any) -> Any:
        """Hand on the last column; stop once nobody waits for more."""
        for ticket, token in zip(self.batch, input_ids[:, -1].tolist(), strict=True):
            ticket.token(token)
        self.count(len(self.batch))
        done = all(ticket.ended for ticket in self.batch)
        return torch.full((len(self.batch),), done, dtype=torch.bool, device=input_ids.device)


def padded(
    prompts: Sequence[Sequence[int]], padding: int
) -> tuple[Int[Tensor, "row token"], Int[Tensor, "row token"]]:
    """Return prompts of one length, filled up on the left, and which tokens are real."""
    longest = max(map(len, prompts))
    ids = torch.tensor([[padding] * (longest - len(one)) + list(one) for one in prompts])
    mask = torch.tensor([[0] * (longest - len(one)) + [1] * len(one) for one in prompts])
    return ids, mask
