"""Errors as OpenAI's API words them, and how FinLoRA's errors become such.

{"error": {"message": …, "type": …, "param": …, "code": …}}
"""

import json
from collections.abc import Mapping
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.responses import Response

from ....experts.errors import FinLoraError
from ..requests import BusyError, InvalidRequestError, QuarantinedModelError, UnknownModelError

FIELDS: Mapping[str, str] = {
    "prompt_ids": "prompt",
    "max_new_tokens": "max_tokens",
    "constraint": "response_format",
    "report_routing": "finlora_routing",
    "deadline_seconds": "finlora_deadline_seconds",
    "stop_token_ids": "stop",
}
"""Fields of `GenerationRequest` that have other names in the API."""

BUSY_SECONDS = 1.0
"""After how long a client may ask again when the queue was full."""


class ErrorDetail(BaseModel):
    """What went wrong."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(BaseModel):
    """The body of every answer that is not a success."""

    error: ErrorDetail


class ApiError(Exception):
    """An answer that is not a success."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = "invalid_request_error",
        parameter: str | None = None,
        code: str | None = None,
        retry_after: float | None = None,
    ):
        """State it.

        Args:
            status: Of HTTP.
            message: One sentence for the user.
            kind: OpenAI's word for the group of errors.
            parameter: Field of the request that is wrong.
            code: OpenAI's word for the error.
            retry_after: Seconds after which the same request may succeed.
        """
        super().__init__(message)
        self.status, self.message, self.kind = status, message, kind
        self.parameter, self.code, self.retry_after = parameter, code, retry_after

    def body(self) -> dict[str, Any]:
        """Return the JSON body."""
        detail = ErrorDetail(message=self.message, type=self.kind, param=self.parameter, code=self.code)
        return {"error": detail.model_dump()}

    def response(self) -> Response:
        """Return the HTTP answer."""
        headers = {}
        if self.retry_after is not None:
            headers["retry-after"] = str(max(1, round(self.retry_after)))
        if self.status == 401:
            headers["www-authenticate"] = "Bearer"
        return AsciiJson(self.body(), status_code=self.status, headers=headers)


class AsciiJson(Response):
    """JSON in ASCII: what a user sent, quoted in a message, may hold halves of characters."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """Return the text's bytes."""
        return json.dumps(content, separators=(",", ":")).encode("ascii")


def to_api_error(error: FinLoraError) -> ApiError:
    """Say in HTTP what the engine or the registry refused."""
    message = str(error)
    if isinstance(error, UnknownModelError):
        return ApiError(404, message, parameter="model", code="model_not_found")
    if isinstance(error, QuarantinedModelError):
        return ApiError(409, message, parameter="model", code="model_quarantined")
    if isinstance(error, BusyError):
        return ApiError(429, message, kind="rate_limit_error", code="queue_full", retry_after=BUSY_SECONDS)
    parameter = error.parameter if isinstance(error, InvalidRequestError) else None
    return ApiError(400, message, parameter=FIELDS.get(parameter or "", parameter))


def from_validation(error: RequestValidationError) -> ApiError:
    """Name the first field that has an impossible value; unions are reported by their field."""
    first = error.errors()[0]
    place = [part for part in first["loc"] if part != "body"]
    if first["type"] == "json_invalid":
        # The place is then a position in the text.
        return ApiError(400, f"The body is not valid JSON: {first['ctx']['error']}.", code="invalid_json")
    if not place:
        return ApiError(
            400, f"The body must be a JSON object, with content type application/json: {first['msg']}."
        )
    field = str(place[0])
    if first["type"] == "extra_forbidden":
        path = ".".join(map(str, place))
        return ApiError(400, f"There is no field {path}.", parameter=field, code="unknown_parameter")
    if first["type"] == "missing":
        path = ".".join(map(str, place))
        return ApiError(400, f"The field {path} is missing.", parameter=field, code="missing_parameter")
    reason = first["msg"].removeprefix("Value error, ")
    return ApiError(400, f"The field {field} has an impossible value: {reason}.", parameter=field)


async def answer_error(request: Request, error: Exception) -> Response:
    """Turn whatever a route raised into an answer."""
    if isinstance(error, ApiError):
        return error.response()
    if isinstance(error, FinLoraError):
        return to_api_error(error).response()
    if isinstance(error, RequestValidationError):
        return from_validation(error).response()
    if isinstance(error, HTTPException):
        named = {
            404: f"There is nothing at {request.url.path}.",
            405: f"{request.url.path} does not take {request.method}.",
        }
        answer = ApiError(error.status_code, named.get(error.status_code, str(error.detail))).response()
        answer.headers.update(error.headers or {})
        return answer
    return ApiError(500, "FinLoRA made a mistake; its log says more.", kind="server_error").response()
