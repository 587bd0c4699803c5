"""POST /v1/completions and /v1/chat/completions."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import aclosing
from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel
from starlette.responses import Response, StreamingResponse

from ....experts.errors import FinLoraError
from ..requests import FinishEvent, GenerationRequest
from .answering import Answering, Progress
from .api_error import ApiError, AsciiJson, ErrorBody, to_api_error
from .api_parts import ApiParts, name_of
from .grammar import compile_format
from .openai_requests import ChatRequest, CompletionRequest, OpenAIRequest
from .openai_responses import (
    ChatCompletion,
    ChatWording,
    Completion,
    CompletionWording,
    Usage,
    Wording,
)
from .token_text import Piece

CLIENT_CLOSED_REQUEST = 499
"""Status that nobody reads, as nginx has it, for the metrics."""

REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorBody, "description": text}
    for status, text in {
        400: "A field is missing, unknown or has an impossible value; `param` names it",
        401: "No key of this server was sent",
        404: "There is no such model",
        409: "The model is in quarantine",
        413: "The body is too large",
        429: "Too many requests; `Retry-After` says when to come again",
        503: "The engine stopped",
    }.items()
}
STREAM = {
    "description": "The answer, or its chunks",
    "content": {"text/event-stream": {"schema": {"type": "string"}}},
}


class GenerationRoutes:
    """Completions and chat."""

    def __init__(self, parts: ApiParts):
        """Answer with these parts."""
        self.parts = parts

    def router(self) -> APIRouter:
        """Return the routes."""
        router = APIRouter(tags=["answers"])
        for path, route, model in (
            ("/v1/completions", self.complete, Completion),
            ("/v1/chat/completions", self.chat, ChatCompletion),
        ):
            router.add_api_route(
                path, route, methods=["POST"], response_model=model, responses=REFUSALS | {200: STREAM}
            )
        return router

    async def complete(self, body: CompletionRequest, request: Request) -> Response:
        """Continue prompts."""
        prompts = await asyncio.to_thread(self.parts.prompts.of_completion, body)
        return await self._answer(body, prompts, request, CompletionWording, "cmpl", "prompt")

    async def chat(self, body: ChatRequest, request: Request) -> Response:
        """Answer a conversation."""
        prompts = [await asyncio.to_thread(self.parts.prompts.of_chat, body)]
        return await self._answer(body, prompts, request, ChatWording, "chatcmpl", "messages")

    async def _answer(
        self,
        body: CompletionRequest | ChatRequest,
        prompts: Sequence[Sequence[int]],
        request: Request,
        wording_kind: type[CompletionWording | ChatWording],
        prefix: str,
        prompt_field: str,
    ) -> Response:
        tenant = request.state.client.name
        requests = await asyncio.to_thread(self._requests, body, prompts, tenant, prompt_field)
        wording = wording_kind(
            f"{prefix}-{uuid.uuid4().hex}",
            name_of(body.model),
            self.parts.vocabulary,
            logprobs=body.top_logprobs_wanted is not None,
            routing=body.finlora_routing,
        )
        prompt_tokens = sum(map(len, prompts))
        answering = self.parts.answering(body.model)
        if body.stream:
            return await self._stream(answering, requests, body, wording, prompt_tokens, request)
        async with answering:
            await answering.submit(requests, body.stops)
            whole = self._whole(answering, body, len(requests), wording, prompt_tokens)
            return await _unless_gone(request, whole)

    def _requests(
        self,
        body: CompletionRequest | ChatRequest,
        prompts: Sequence[Sequence[int]],
        tenant: str,
        prompt_field: str,
    ) -> list[GenerationRequest]:
        """Return one request for each prompt and each of its n answers."""
        settings, vocabulary = self.parts.settings, self.parts.vocabulary
        if len(prompts) * body.n > settings.choice_limit:
            raise ApiError(
                400,
                f"{len(prompts)} prompts with n = {body.n} make {len(prompts) * body.n} answers; at most "
                f"{settings.choice_limit} are given at once.",
                parameter="n",
            )
        rooms = [
            self.parts.prompts.room(one, body.most_new_tokens, parameter=prompt_field) for one in prompts
        ]
        return [
            GenerationRequest(
                prompt_ids=prompt,
                model=body.model,
                max_new_tokens=room,
                temperature=1.0 if body.temperature is None else body.temperature,
                top_p=1.0 if body.top_p is None else body.top_p,
                top_k=body.top_k,
                seed=_seed(body, number),
                top_logprobs=body.top_logprobs_wanted,
                ignore_eos=body.ignore_eos,
                constraint=compile_format(
                    body.response_format, vocabulary, schema_limit=settings.schema_limit
                ),
                report_routing=body.finlora_routing,
                tenant=tenant,
                deadline_seconds=body.finlora_deadline_seconds,
            )
            for prompt, room in zip(prompts, rooms, strict=True)
            for number in range(body.n)
        ]

    async def _whole(
        self, answering: Answering, body: OpenAIRequest, count: int, wording: Wording, prompt_tokens: int
    ) -> Response:
        pieces: list[list[Piece]] = [[] for _ in range(count)]
        finishes: dict[int, FinishEvent] = {}
        async for new in answering.progress():
            pieces[new.choice] += new.pieces
            if new.finish is not None:
                finishes[new.choice] = self._accept(new.finish, body)
        choices = [wording.whole(i, pieces[i], finishes[i]) for i in range(count)]
        usage = _usage(prompt_tokens, finishes.values())
        return AsciiJson(wording.envelope(choices, usage, chunk=False).model_dump(mode="json"))

    async def _stream(
        self,
        answering: Answering,
        requests: list[GenerationRequest],
        body: OpenAIRequest,
        wording: Wording,
        prompt_tokens: int,
        request: Request,
    ) -> Response:
        """Begin to stream once there is anything to send, since a refusal can be given only until then."""
        events = answering.progress()
        try:
            await answering.submit(requests, body.stops)
            first = await _unless_gone(request, self._first(events, body))
        except BaseException:
            answering.cancel()
            raise
        if isinstance(first, Response):
            answering.cancel()
            return first
        chunks = self._chunks(answering, first, events, body, wording, prompt_tokens)
        return StreamingResponse(
            chunks, media_type="text/event-stream", headers={"cache-control": "no-store"}
        )

    async def _first(self, events: AsyncIterator[Progress], body: OpenAIRequest) -> Progress:
        first = await anext(events)
        if first.finish is not None:
            self._accept(first.finish, body)
        return first

    async def _chunks(
        self,
        answering: Answering,
        first: Progress,
        events: Any,
        body: OpenAIRequest,
        wording: Wording,
        prompt_tokens: int,
    ) -> AsyncIterator[str]:
        """Yield server-sent events; an error after the first chunk is one of them."""
        offsets: dict[int, int] = {}
        finishes: list[FinishEvent] = []
        async with answering, aclosing(events):
            try:
                async for new in _chain(first, events):
                    if new.finish is not None:
                        finishes.append(self._accept(new.finish, body))
                    if new.pieces or new.finish is not None:
                        part = wording.part(new.choice, new.pieces, new.finish, offsets.get(new.choice, 0))
                        length = sum(len(piece.text) for piece in new.pieces)
                        offsets[new.choice] = offsets.get(new.choice, 0) + length
                        yield _event(wording.envelope([part], None, chunk=True))
                if body.stream_options is not None and body.stream_options.include_usage:
                    yield _event(wording.envelope([], _usage(prompt_tokens, finishes), chunk=True))
            except (ApiError, FinLoraError) as error:
                refusal = error if isinstance(error, ApiError) else to_api_error(error)
                yield f"data: {json.dumps(refusal.body())}\n\n"
            yield "data: [DONE]\n\n"

    def _accept(self, finish: FinishEvent, body: OpenAIRequest) -> FinishEvent:
        """Return an end that is an answer.

        Raises:
            ApiError: If it is none.
        """
        if finish.reason == "aborted":
            raise ApiError(
                429, finish.message, kind="rate_limit_error", code="first_token_too_late", retry_after=1.0
            )
        if finish.reason == "failed":
            if self.parts.is_quarantined(body.model):
                raise ApiError(409, finish.message, parameter="model", code="model_quarantined")
            raise ApiError(503, finish.message, kind="server_error", code="generation_failed")
        if finish.reason == "cancelled":
            raise ApiError(503, finish.message or "The server stops.", kind="server_error", code="cancelled")
        return finish


async def _unless_gone(request: Request, work: Coroutine[Any, Any, Any]) -> Any:
    """Return what work returns, or an answer that nobody reads as soon as the client hangs up."""
    working = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_hang_up(request))
    try:
        await asyncio.wait((working, gone), return_when=asyncio.FIRST_COMPLETED)
        return await working if working.done() else Response(status_code=CLIENT_CLOSED_REQUEST)
    finally:
        working.cancel()
        gone.cancel()


async def _hang_up(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _chain(first: Progress, rest: AsyncIterator[Progress]) -> AsyncIterator[Progress]:
    yield first
    async for one in rest:
        yield one


def _event(content: BaseModel) -> str:
    return f"data: {content.model_dump_json(ensure_ascii=True)}\n\n"


def _seed(body: OpenAIRequest, number: int) -> int | None:
    return None if body.seed is None else (body.seed + number + 2**63) % 2**64 - 2**63


def _usage(prompt_tokens: int, finishes: Any) -> Usage:
    new = sum(finish.new_tokens for finish in finishes)
    return Usage(prompt_tokens=prompt_tokens, completion_tokens=new, total_tokens=prompt_tokens + new)
