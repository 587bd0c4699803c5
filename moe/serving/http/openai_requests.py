"""Bodies of OpenAI's completions and chat, with a few fields more, as pydantic checks them.

Fields that are not known, or that nothing here can do, are refused by name: a request that asks for a penalty
and gets an answer without one would be worse.

Beyond OpenAI's: `model` may also be weights of experts, as an object or as its JSON in a string (for clients
that take nothing but strings); `top_k`, `ignore_eos`, `finlora_routing`, `finlora_deadline_seconds`, at which
an answer ends with what there is of it and finish_reason "deadline"; completions take a `response_format`.
Choice i of a request draws with seed + i.
"""

import json
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

from ..requests import BASE_MODEL

WEIGHT_LIMIT = 100.0
"""Largest weight of an expert, either sign."""
MOST_WEIGHTS = 64
"""Most experts in one set of weights."""


def _check_characters(text: str) -> str:
    """JSON can escape half a character, which is no text."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"character {error.start} is half a character (a lone surrogate)") from error
    return text


Text = Annotated[str, AfterValidator(_check_characters)]
Weight = Annotated[float, Field(ge=-WEIGHT_LIMIT, le=WEIGHT_LIMIT, allow_inf_nan=False)]
Weights = Annotated[dict[Text, Weight], Field(min_length=1, max_length=MOST_WEIGHTS)]
StopString = Annotated[Text, Field(min_length=1, max_length=1000)]
TokenIds = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class JsonSchema(_Strict):
    """A JSON schema with its name."""

    name: str = ""
    description: str | None = None
    # `schema` is a method of BaseModel.
    schema_: dict[str, Any] | None = Field(default=None, alias="schema")
    strict: bool | None = None


class ResponseFormat(_Strict):
    """What an answer must look like."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None

    @model_validator(mode="after")
    def _check(self) -> "ResponseFormat":
        if (self.type == "json_schema") != (self.json_schema is not None):
            raise ValueError("json_schema is given exactly when the type is json_schema")
        return self


class StreamOptions(_Strict):
    """How to stream."""

    include_usage: bool = False
    include_obfuscation: bool = False


class OpenAIRequest(_Strict):
    """What completions and chat have in common."""

    model: Annotated[Text, Field(max_length=4096)] | Weights = BASE_MODEL
    n: Annotated[int, Field(ge=1, le=128)] = 1
    temperature: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] | None = 1.0
    top_p: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] | None = 1.0
    top_k: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: StopString | Annotated[list[StopString], Field(max_length=16)] | None = None
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    max_tokens: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = None
    response_format: ResponseFormat | None = None
    ignore_eos: bool = False
    finlora_routing: bool = False
    finlora_deadline_seconds: Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)] | None = None
    user: str | None = None
    frequency_penalty: Annotated[float, Field(ge=0, le=0)] | None = None
    presence_penalty: Annotated[float, Field(ge=0, le=0)] | None = None
    logit_bias: Annotated[dict[str, float], Field(max_length=0)] | None = None

    @field_validator("model", mode="before")
    @classmethod
    def _read_weights(cls, value: Any) -> Any:
        """Read a string that holds an object as that object."""
        if isinstance(value, str) and value.lstrip().startswith("{"):
            try:
                return json.loads(value)
            except (ValueError, RecursionError) as error:
                raise ValueError('a model that begins with { must be JSON such as {"finer": 0.7}') from error
        return value

    @model_validator(mode="after")
    def _check_stream_options(self) -> "OpenAIRequest":
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options need stream")
        return self

    @property
    def stops(self) -> list[str]:
        """Strings that end an answer."""
        return [self.stop] if isinstance(self.stop, str) else list(self.stop or ())


class CompletionRequest(OpenAIRequest):
    """Body of /v1/completions."""

    prompt: Text | TokenIds | Annotated[list[Text] | list[TokenIds], Field(min_length=1)]
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    echo: Literal[False] | None = None
    suffix: None = None
    best_of: Annotated[int, Field(ge=1, le=1)] | None = None

    @property
    def most_new_tokens(self) -> int | None:
        """Most tokens of an answer; 16 as OpenAI has it."""
        return 16 if self.max_tokens is None else self.max_tokens

    @property
    def top_logprobs_wanted(self) -> int | None:
        """How many likeliest tokens to report beside each, or None."""
        return self.logprobs


class TextPart(_Strict):
    """Text of a message."""

    type: Literal["text"]
    text: Text


class ChatMessage(_Strict):
    """One message."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Text | Annotated[list[TextPart], Field(min_length=1)]
    name: Text | None = None

    @property
    def text(self) -> str:
        """All text of it."""
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


class ChatRequest(OpenAIRequest):
    """Body of /v1/chat/completions."""

    messages: Annotated[list[ChatMessage], Field(min_length=1)]
    logprobs: bool | None = False
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = None

    @model_validator(mode="after")
    def _check_logprobs(self) -> "ChatRequest":
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs need logprobs")
        return self

    @property
    def most_new_tokens(self) -> int | None:
        """Most tokens of an answer; None fills what room there is."""
        return self.max_completion_tokens if self.max_completion_tokens is not None else self.max_tokens

    @property
    def top_logprobs_wanted(self) -> int | None:
        """How many likeliest tokens to report beside each, or None."""
        return (self.top_logprobs or 0) if self.logprobs else None
