"""Answers as OpenAI's completions and chat word them, whole and in chunks.

`finlora_routing`, where asked for, has each token's text with the weight by expert; `finlora_model` says
which versions answered.
"""

import time
from collections.abc import Sequence
from typing import Any, Literal, Protocol

from pydantic import BaseModel

from ..requests import FinishEvent, TokenEvent
from .token_text import Piece, Vocabulary


class Usage(BaseModel):
    """Tokens read and written."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class RoutedToken(BaseModel):
    """How much of each expert one token used."""

    text: str
    weights: dict[str, float]


class TokenLogprob(BaseModel):
    """A token that could have come, in chat."""

    token: str
    logprob: float
    bytes: list[int]


class ChosenLogprob(TokenLogprob):
    """A token that came, in chat, and the likeliest in its place."""

    top_logprobs: list[TokenLogprob]


class ChatLogprobs(BaseModel):
    """Of all tokens of an answer in chat."""

    content: list[ChosenLogprob]
    refusal: None = None


class CompletionLogprobs(BaseModel):
    """Of all tokens of a completion."""

    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]]
    text_offset: list[int]


class CompletionChoice(BaseModel):
    """One completion."""

    index: int
    text: str
    logprobs: CompletionLogprobs | None = None
    finish_reason: str | None = None
    finlora_routing: list[RoutedToken] | None = None
    finlora_model: str | None = None


class AnswerMessage(BaseModel):
    """What was said."""

    role: Literal["assistant"] | None = None
    content: str | None = None
    refusal: None = None


class ChatChoice(BaseModel):
    """One answer."""

    index: int
    message: AnswerMessage
    logprobs: ChatLogprobs | None = None
    finish_reason: str | None = None
    finlora_routing: list[RoutedToken] | None = None
    finlora_model: str | None = None


class ChatChunkChoice(BaseModel):
    """What is new of one answer."""

    index: int
    delta: AnswerMessage
    logprobs: ChatLogprobs | None = None
    finish_reason: str | None = None
    finlora_routing: list[RoutedToken] | None = None
    finlora_model: str | None = None


class _Envelope(BaseModel):
    id: str
    created: int
    model: str
    usage: Usage | None = None


class Completion(_Envelope):
    """Answer of /v1/completions, and each chunk of it."""

    object: Literal["text_completion"] = "text_completion"
    choices: list[CompletionChoice]


class ChatCompletion(_Envelope):
    """Answer of /v1/chat/completions."""

    object: Literal["chat.completion"] = "chat.completion"
    choices: list[ChatChoice]


class ChatCompletionChunk(_Envelope):
    """A chunk of an answer of /v1/chat/completions."""

    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    choices: list[ChatChunkChoice]


class Wording(Protocol):
    """How one of both APIs words answers."""

    def whole(self, index: int, pieces: Sequence[Piece], finish: FinishEvent) -> BaseModel:
        """Word a complete answer."""
        ...

    def part(self, index: int, pieces: Sequence[Piece], finish: FinishEvent | None, offset: int) -> BaseModel:
        """Word what is new of an answer, which has `offset` characters before."""
        ...

    def envelope(self, choices: Sequence[Any], usage: Usage | None, *, chunk: bool) -> BaseModel:
        """Put choices into what is sent."""
        ...


class _Words:
    """What both wordings share."""

    def __init__(self, answer_id: str, model: str, vocabulary: Vocabulary, *, logprobs: bool, routing: bool):
        """Prepare one answer.

        Args:
            answer_id: Of the HTTP request.
            model: As the request named it.
            vocabulary: The base's tokens.
            logprobs: Whether they were asked for.
            routing: Whether it was asked for.
        """
        self._head = {"id": answer_id, "created": int(time.time()), "model": model}
        self._vocabulary, self._logprobs, self._routing = vocabulary, logprobs, routing

    def _shared(self, index: int, pieces: Sequence[Piece], finish: FinishEvent | None) -> dict[str, Any]:
        return {
            "index": index,
            "finish_reason": None if finish is None else finish.reason,
            "finlora_model": (finish.model_version or None) if finish is not None else None,
            "finlora_routing": [
                RoutedToken(text=piece.text, weights=dict(piece.event.routing or {})) for piece in pieces
            ]
            if self._routing
            else None,
        }


class CompletionWording(_Words):
    """The words of /v1/completions."""

    def part(
        self, index: int, pieces: Sequence[Piece], finish: FinishEvent | None, offset: int
    ) -> CompletionChoice:
        """Word what is new of a completion."""
        text = "".join(piece.text for piece in pieces)
        logprobs = self._word_logprobs(pieces, offset) if self._logprobs else None
        return CompletionChoice(text=text, logprobs=logprobs, **self._shared(index, pieces, finish))

    def whole(self, index: int, pieces: Sequence[Piece], finish: FinishEvent) -> CompletionChoice:
        """Word a completion."""
        return self.part(index, pieces, finish, 0)

    def _word_logprobs(self, pieces: Sequence[Piece], offset: int) -> CompletionLogprobs:
        offsets = []
        for piece in pieces:
            offsets.append(offset)
            offset += len(piece.text)
        name = self._vocabulary.text_of
        return CompletionLogprobs(
            tokens=[name(piece.event.token_id) for piece in pieces],
            token_logprobs=[piece.event.logprob or 0.0 for piece in pieces],
            top_logprobs=[
                # Of tokens with equal text, such as halves of characters, the likeliest stays: it comes last.
                {name(token): value for token, value in reversed(list(piece.event.top_logprobs.items()))}
                for piece in pieces
            ],
            text_offset=offsets,
        )

    def envelope(
        self, choices: Sequence[CompletionChoice], usage: Usage | None, *, chunk: bool
    ) -> Completion:
        """Put completions into what is sent."""
        return Completion(choices=list(choices), usage=usage, **self._head)


class ChatWording(_Words):
    """The words of /v1/chat/completions."""

    def part(
        self, index: int, pieces: Sequence[Piece], finish: FinishEvent | None, offset: int
    ) -> ChatChunkChoice:
        """Word what is new of an answer; its first part says who speaks."""
        text = "".join(piece.text for piece in pieces)
        delta = AnswerMessage(role="assistant" if offset == 0 else None, content=text)
        return ChatChunkChoice(
            delta=delta, logprobs=self._word_logprobs(pieces), **self._shared(index, pieces, finish)
        )

    def whole(self, index: int, pieces: Sequence[Piece], finish: FinishEvent) -> ChatChoice:
        """Word an answer."""
        message = AnswerMessage(role="assistant", content="".join(piece.text for piece in pieces))
        return ChatChoice(
            message=message, logprobs=self._word_logprobs(pieces), **self._shared(index, pieces, finish)
        )

    def _word_logprobs(self, pieces: Sequence[Piece]) -> ChatLogprobs | None:
        return (
            ChatLogprobs(content=[self._chosen(piece.event) for piece in pieces]) if self._logprobs else None
        )

    def _chosen(self, event: TokenEvent) -> ChosenLogprob:
        return ChosenLogprob(
            **self._word(event.token_id, event.logprob or 0.0),
            top_logprobs=[
                TokenLogprob(**self._word(token, value)) for token, value in event.top_logprobs.items()
            ],
        )

    def _word(self, token: int, logprob: float) -> dict[str, Any]:
        raw = self._vocabulary.bytes_of(token)
        return {"token": raw.decode("utf-8", "replace"), "logprob": logprob, "bytes": list(raw)}

    def envelope(
        self, choices: Sequence[Any], usage: Usage | None, *, chunk: bool
    ) -> ChatCompletion | ChatCompletionChunk:
        """Put answers, or parts of them, into what is sent."""
        kind = ChatCompletionChunk if chunk else ChatCompletion
        return kind(choices=list(choices), usage=usage, **self._head)
