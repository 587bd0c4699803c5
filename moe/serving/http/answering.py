"""From the engine's threads to the event loop: the running answers of one HTTP request."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace

from ..requests import (
    FinishEvent,
    GenerationRequest,
    ServingEngine,
    Ticket,
    TokenEvent,
)
from .api_error import ApiError
from .token_text import AnswerText, Piece, Vocabulary

Happening = TokenEvent | FinishEvent | Exception


@dataclass(frozen=True)
class Progress:
    """What is new of one answer."""

    choice: int
    """Number of the answer."""
    pieces: list[Piece]
    """Tokens with their text."""
    finish: FinishEvent | None
    """Its end, if this is the last there is of it."""


@dataclass
class _Choice:
    ticket: Ticket
    text: AnswerText
    tokens: int = 0
    ended: bool = False


class Answering:
    """All answers to one HTTP request; every one of its engine's tickets ends with it.

    Use it as an asynchronous context: leaving it cancels what still runs.
    """

    def __init__(
        self,
        engine: ServingEngine,
        vocabulary: Vocabulary,
        threads: Executor,
        *,
        ended: Callable[[FinishEvent], None],
        stall_seconds: float,
    ):
        """Prepare.

        Args:
            engine: Answers.
            vocabulary: The base's tokens.
            threads: One waits for each answer.
            ended: Called in such a thread when the engine is done with an answer.
            stall_seconds: After how long without an event an answer is given up.
        """
        self._engine, self._vocabulary, self._threads = engine, vocabulary, threads
        self._ended, self._stall_seconds = ended, stall_seconds
        self._choices: list[_Choice] = []
        self._events: asyncio.Queue[tuple[int, Happening]] = asyncio.Queue()

    async def __aenter__(self) -> "Answering":
        """Begin."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Cancel what still runs."""
        self.cancel()

    def cancel(self) -> None:
        """Give up all answers that have not ended."""
        for choice in self._choices:
            if not choice.ended:
                choice.ticket.cancel()

    async def submit(self, requests: Sequence[GenerationRequest], stops: Sequence[str]) -> None:
        """Queue one request for each answer, or none of them.

        Raises:
            FinLoraError: As the engine refuses them.
        """
        loop = asyncio.get_running_loop()
        for index, request in enumerate(requests):
            ticket = await loop.run_in_executor(None, self._engine.submit, request)
            self._choices.append(_Choice(ticket, AnswerText(self._vocabulary, stops)))
            self._threads.submit(self._follow, index, ticket, loop)

    def _follow(self, index: int, ticket: Ticket, loop: asyncio.AbstractEventLoop) -> None:
        """Hand events on; runs in a thread of its own until the ticket ends."""

        def put(happening: Happening) -> None:
            # The loop may be gone when the server stops; then nobody waits.
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._events.put_nowait, (index, happening))

        try:
            for event in ticket.events(self._stall_seconds):
                if isinstance(event, FinishEvent):
                    by_string = self._choices[index].text.stopped
                    self._ended(replace(event, reason="stop") if by_string else event)
                put(event)
        except Exception as error:
            ticket.cancel()
            put(error)

    async def progress(self) -> AsyncIterator[Progress]:
        """Yield what is new of any answer until all have ended.

        Raises:
            ApiError: If an answer cannot be completed.
        """
        open_choices = len(self._choices)
        while open_choices:
            index, happening = await self._events.get()
            choice = self._choices[index]
            if choice.ended:
                continue
            new = self._take(index, choice, happening)
            choice.ended = new.finish is not None
            open_choices -= choice.ended
            yield new

    def _take(self, index: int, choice: _Choice, happening: Happening) -> Progress:
        if isinstance(happening, TokenEvent):
            if choice.text.stopped:
                return Progress(index, [], None)
            choice.tokens += 1
            pieces = choice.text.push(happening)
            if choice.text.stopped:
                choice.ticket.cancel()
            return Progress(index, pieces, None)
        if isinstance(happening, FinishEvent):
            if choice.text.stopped:
                return Progress(index, [], replace(happening, reason="stop", new_tokens=choice.tokens))
            return Progress(index, choice.text.finish(), happening)
        if isinstance(happening, TimeoutError):
            raise ApiError(
                503, f"The engine gave no sign of life for {self._stall_seconds:g} s.", kind="server_error"
            ) from happening
        raise happening
