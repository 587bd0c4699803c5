"""What the server tells of itself: models, health, metrics, the engine's state, and the page."""

import asyncio
import dataclasses
from pathlib import Path
from typing import Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel
from starlette.responses import HTMLResponse, Response

from ..requests import BASE_MODEL
from .api_error import AsciiJson
from .api_parts import ApiParts, ModelKind
from .generation_routes import REFUSALS

PAGE_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""The page brings all it needs, and talks to its own server only."""


class Model(BaseModel):
    """A model that can be asked for."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "finlora"
    kind: ModelKind


class Models(BaseModel):
    """All models that can be asked for."""

    object: Literal["list"] = "list"
    data: list[Model]


class Health(BaseModel):
    """Whether the server answers."""

    status: Literal["ok"] = "ok"
    queued: int
    running: int


class EngineNow(BaseModel):
    """`EngineState`, as JSON."""

    base: str
    queued: int
    running: int
    free_pages: int
    total_pages: int
    cache_pages: int
    expert_pages: int
    resident: dict[str, int]
    loads: int
    hits: int
    evictions: int
    aborted: int
    generated_tokens: int


class InformationRoutes:
    """What the server tells of itself."""

    def __init__(self, parts: ApiParts):
        """Tell of these parts."""
        self.parts = parts
        self._page = (Path(__file__).parent / "page" / "index.html").read_text(encoding="utf-8")

    def router(self) -> APIRouter:
        """Return the routes."""
        router = APIRouter(tags=["information"])
        keyed: dict[int | str, dict[str, Any]] = {401: REFUSALS[401]}
        missing = keyed | {404: REFUSALS[404]}
        router.add_api_route("/v1/models", self.models, response_model=Models, responses=keyed)
        router.add_api_route("/v1/models/{name:path}", self.model, response_model=Model, responses=missing)
        router.add_api_route("/v1/engine", self.engine, response_model=EngineNow, responses=keyed)
        router.add_api_route("/health", self.health, response_model=Health)
        text: dict[int | str, dict[str, Any]] = {
            200: {"content": {"text/plain": {"schema": {"type": "string"}}}}
        }
        router.add_api_route("/metrics", self.metrics, response_class=Response, responses=keyed | text)
        router.add_api_route("/", self.page, response_class=HTMLResponse)
        return router

    async def models(self) -> Response:
        """List the base, experts and mixtures."""
        return AsciiJson((await asyncio.to_thread(self._models)).model_dump())

    def _models(self) -> Models:
        registry, created = self.parts.registry, self.parts.started
        data = [Model(id=BASE_MODEL, created=created, kind="base")]
        data += [Model(id=name, created=created, kind="expert") for name in registry.names()]
        data += [Model(id=name, created=created, kind="mixture") for name in registry.mixture_names()]
        return Models(data=data)

    async def model(self, name: str) -> Response:
        """Describe one model."""
        return AsciiJson((await asyncio.to_thread(self._model, name)).model_dump())

    def _model(self, name: str) -> Model:
        if name != BASE_MODEL:
            # For its refusal, which has near names.
            self.parts.registry.find(name)
        return Model(id=name, created=self.parts.started, kind=self.parts.kind_of(name))

    async def engine(self) -> Response:
        """Say what the engine holds now."""
        state = dataclasses.asdict(self.parts.engine.state())
        return AsciiJson(EngineNow(base=self.parts.base_name, **state).model_dump())

    async def health(self) -> Response:
        """Say whether the server answers."""
        state = self.parts.engine.state()
        return AsciiJson(Health(queued=state.queued, running=state.running).model_dump())

    async def metrics(self) -> Response:
        """Return metrics in Prometheus' text format."""
        text = await asyncio.to_thread(self.parts.metrics.text)
        return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")

    async def page(self) -> HTMLResponse:
        """Show the page."""
        return HTMLResponse(self._page, headers={"content-security-policy": PAGE_POLICY})
