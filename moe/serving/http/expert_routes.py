"""GET, POST and DELETE /v1/experts: which experts and mixtures are served, adding and removing them.

An expert comes as the path of its folder below the folder that the server was started with, or as the content
of its two files. Nothing else is read, and only the registry writes.
"""

import asyncio
import base64
import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field, model_validator
from starlette.responses import Response

from ....experts.adapter import CONFIG_FILE, METADATA_FILE, WEIGHTS_FILE
from ....experts.errors import FinLoraError
from ..near_names import check_name
from ..registry_changes import NameTakenError
from ..registry_index import ExpertKey
from .api_error import ApiError, AsciiJson
from .api_parts import ApiParts
from .generation_routes import REFUSALS
from .keys import Client


class NewExpert(BaseModel):
    """An expert or a mixture to serve."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: Annotated[str, Field(min_length=1, max_length=100)]
    kind: Literal["expert", "mixture"] = "expert"
    source: Annotated[str, Field(min_length=1, max_length=4096)] | None = None
    """Path of its folder, relative to the server's folder of sources."""
    adapter_config: dict[str, Any] | None = None
    """Content of adapter_config.json."""
    adapter_model: str | None = None
    """Content of adapter_model.safetensors in base64."""
    expert: dict[str, Any] | None = None
    """Content of expert.json, if there is one."""
    replace: bool = False
    """Whether a new version may take the place of one that is served; running requests keep the old one."""

    @model_validator(mode="after")
    def _check(self) -> "NewExpert":
        files = (self.adapter_config is not None, self.adapter_model is not None)
        if (self.source is not None) == any(files) or (any(files) and not all(files)):
            raise ValueError("give either source, or adapter_config with adapter_model")
        if self.kind == "mixture" and self.source is None:
            raise ValueError("a mixture is added from a source")
        return self


class ServedExpert(BaseModel):
    """An expert or a mixture that is served."""

    name: str
    kind: Literal["expert", "mixture"]
    version: int | None = None
    quarantined: str | None = None
    """Why it is not used any more."""
    resident_bytes: int = 0
    """What it takes of the device's memory now."""


class ServedExperts(BaseModel):
    """All that are served."""

    object: Literal["list"] = "list"
    data: list[ServedExpert]


class Removed(BaseModel):
    """What is not served any more."""

    name: str
    deleted: Literal[True] = True


class ExpertRoutes:
    """Which experts and mixtures there are."""

    def __init__(self, parts: ApiParts):
        """Change the registry of these parts."""
        self.parts = parts

    def router(self) -> APIRouter:
        """Return the routes."""
        router = APIRouter(tags=["experts"])
        refusals = REFUSALS | {403: {**REFUSALS[401], "description": "This key may not change experts"}}
        for method, path, route, model, status in (
            ("GET", "/v1/experts", self.show, ServedExperts, 200),
            ("POST", "/v1/experts", self.add, ServedExpert, 201),
            ("DELETE", "/v1/experts/{name}", self.remove, Removed, 200),
        ):
            router.add_api_route(
                path, route, methods=[method], response_model=model, status_code=status, responses=refusals
            )
        return router

    async def show(self) -> Response:
        """List experts and mixtures."""
        return AsciiJson((await asyncio.to_thread(self._list)).model_dump())

    def _list(self) -> ServedExperts:
        registry, resident = self.parts.registry, self.parts.engine.state().resident
        reasons = registry.quarantined()
        experts = []
        for name in registry.names():
            # Of all versions the newest is served.
            key = ExpertKey(name, max(registry.versions(name), default=0))
            experts.append(
                ServedExpert(
                    name=name,
                    kind="expert",
                    version=key.version,
                    quarantined=reasons.get(key),
                    resident_bytes=resident.get(str(key), 0),
                )
            )
        mixtures = [ServedExpert(name=name, kind="mixture") for name in registry.mixture_names()]
        return ServedExperts(data=experts + mixtures)

    async def add(self, body: NewExpert, request: Request) -> Response:
        """Add an expert or a mixture, or replace an expert by a new version."""
        _check_may_change(request)
        added = await asyncio.to_thread(self._add, body)
        return AsciiJson(added.model_dump(), status_code=201)

    def _add(self, body: NewExpert) -> ServedExpert:
        registry = self.parts.registry
        try:
            check_name(body.name)
        except FinLoraError as error:
            raise ApiError(400, str(error), parameter="name") from error
        add = registry.add_mixture if body.kind == "mixture" else registry.add
        with self._folder(body) as (folder, within):
            try:
                key = add(body.name, folder, replace=body.replace, within=within)
            except FinLoraError as error:
                raise _refusal(error, body, within) from error
        return ServedExpert(name=body.name, kind=body.kind, version=key.version)

    @contextmanager
    def _folder(self, body: NewExpert) -> Iterator[tuple[Path, Path]]:
        """Yield the folder to add from, and the one that it has to lie in."""
        if body.source is not None:
            root = self.parts.settings.expert_source
            if root is None:
                raise ApiError(
                    400,
                    "This server takes uploads only, since it was started without --expert-source.",
                    parameter="source",
                )
            yield root / body.source, root
            return
        try:
            weights = base64.b64decode(body.adapter_model or "", validate=True)
        except ValueError as error:
            raise ApiError(
                400, f"The field adapter_model is not base64: {error}.", parameter="adapter_model"
            ) from error
        with tempfile.TemporaryDirectory(prefix="finlora-upload-") as name:
            folder = Path(name)
            (folder / WEIGHTS_FILE).write_bytes(weights)
            (folder / CONFIG_FILE).write_text(json.dumps(body.adapter_config), encoding="utf-8")
            if body.expert is not None:
                (folder / METADATA_FILE).write_text(json.dumps(body.expert), encoding="utf-8")
            yield folder, folder

    async def remove(self, name: str, request: Request) -> Response:
        """Take an expert or a mixture out of service; requests that run end as they would."""
        _check_may_change(request)
        await asyncio.to_thread(self._remove, name)
        return AsciiJson(Removed(name=name).model_dump())

    def _remove(self, name: str) -> None:
        registry = self.parts.registry
        if name in registry.mixture_names():
            registry.remove_mixture(name)
        else:
            registry.remove(name)


def _check_may_change(request: Request) -> None:
    client: Client = request.state.client
    if not client.manages_experts:
        raise ApiError(
            403, "This key may not add or remove experts.", kind="permission_error", code="not_allowed"
        )


def _refusal(error: FinLoraError, body: NewExpert, within: Path) -> ApiError:
    """Word why an expert is refused; the server's own paths are no concern of the client."""
    named = "the sources" if body.source is not None else "the upload"
    message = str(error).replace(str(within.resolve()), named).replace(str(within), named)
    if isinstance(error, NameTakenError):
        return ApiError(409, message, parameter="name", code="name_taken")
    field = "source" if body.source is not None else "adapter_model"
    return ApiError(400, message, parameter=field, code="expert_refused")
