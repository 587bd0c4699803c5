"""What goes into the engine and comes out of it: the words that registry, engine and HTTP API share."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

from torch import Tensor

from ...experts.errors import FinLoraError

BASE_MODEL = "base"
"""Name under which a request asks for the base without experts."""

ModelChoice = str | Mapping[str, float]
"""The base, one expert, a mixture, each by its name, or weights of experts by their names."""

FinishReason = Literal["stop", "length", "cancelled", "deadline", "aborted", "failed"]
"""`aborted` means dropped before its first token, since that would have come too late."""


class UnknownModelError(FinLoraError):
    """No model of this name is served (404)."""


class QuarantinedModelError(FinLoraError):
    """The expert exists, but made numbers that are not finite and is not used any more (409)."""


class InvalidRequestError(FinLoraError):
    """A field of a request has a value that cannot be served (400)."""

    def __init__(self, parameter: str, message: str):
        super().__init__(message)
        self.parameter = parameter
        """Name of the field of `GenerationRequest` that is wrong."""


class BusyError(FinLoraError):
    """The queue is full (429)."""


@runtime_checkable
class TokenConstraint(Protocol):
    """What a grammar allows next; one object serves one request."""

    def allowed(self) -> Tensor:
        """Return which tokens may come next: bool (vocabulary,)."""
        ...

    def accept(self, token: int) -> None:
        """Take note of the token that came."""
        ...


@dataclass(frozen=True, kw_only=True)
class GenerationRequest:
    """One prompt to continue."""

    prompt_ids: Sequence[int]
    model: ModelChoice = BASE_MODEL
    max_new_tokens: int = 64
    temperature: float = 0.0
    """0 takes the likeliest token each time."""
    top_p: float = 1.0
    top_k: int = 0
    """0 keeps all tokens."""
    seed: int | None = None
    """Equal seeds give equal answers whatever else runs in the batch; None draws one."""
    top_logprobs: int | None = None
    """How many likeliest tokens to report beside each token; 0 reports only its own; None nothing."""
    stop_token_ids: Sequence[int] = ()
    """Beside the base's own end tokens; ignored with `ignore_eos`, as those are."""
    ignore_eos: bool = False
    constraint: TokenConstraint | None = None
    report_routing: bool = False
    """Whether each token comes with how much of each expert it used."""
    tenant: str = ""
    """Who asks; tenants get equal shares of the engine."""
    deadline_seconds: float | None = None
    """Seconds after submission at which the request is given up."""


@dataclass(frozen=True, kw_only=True)
class TokenEvent:
    """A token that was generated."""

    token_id: int
    logprob: float | None = None
    top_logprobs: Mapping[int, float] = field(default_factory=dict)
    routing: Mapping[str, float] | None = None
    """Weight by expert, the mean over adapted layers, for the token that this one was predicted from."""


@dataclass(frozen=True, kw_only=True)
class FinishEvent:
    """The end of a request; nothing comes after it."""

    reason: FinishReason
    message: str = ""
    """One sentence for the user where the reason is not stop or length."""
    prompt_tokens: int = 0
    new_tokens: int = 0
    first_token_seconds: float | None = None
    """From submission to the first token."""
    model_version: str = ""
    """What answered, such as `finer@2`."""


@runtime_checkable
class Ticket(Protocol):
    """One running request."""

    def events(self, timeout: float | None = None) -> Iterator[TokenEvent | FinishEvent]:
        """Yield what happens, as it happens; the last is a `FinishEvent`.

        Safe in any thread, for one reader.

        Raises:
            TimeoutError: If nothing happens for `timeout` seconds.
        """
        ...

    def cancel(self) -> None:
        """Give the request up; a `FinishEvent` follows. Safe in any thread, and after the end."""
        ...


@dataclass(frozen=True, kw_only=True)
class EngineState:
    """What the engine holds at one moment."""

    queued: int
    running: int
    free_pages: int
    total_pages: int
    cache_pages: int
    expert_pages: int
    resident: Mapping[str, int]
    """Bytes of each expert on the device, by its name and version such as `finer@2`."""
    loads: int
    """Experts brought to the device since the start."""
    hits: int
    """Requests whose experts were on the device already."""
    evictions: int
    aborted: int
    generated_tokens: int


@runtime_checkable
class ServingEngine(Protocol):
    """What the HTTP API and the load test run against."""

    def submit(self, request: GenerationRequest) -> Ticket:
        """Queue a request. Safe in any thread.

        Raises:
            UnknownModelError: If no such model is served; the message has near names.
            QuarantinedModelError: If one of its experts is in quarantine.
            InvalidRequestError: If a field cannot be served.
            BusyError: If the queue is full.
        """
        ...

    def state(self) -> EngineState:
        """Return counts for metrics. Safe in any thread."""
        ...

    def close(self) -> None:
        """Stop; requests that still run end as cancelled."""
        ...
