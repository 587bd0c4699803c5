"""The FastAPI application: start reading here."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from ....experts.base_model import Base
from ....experts.errors import FinLoraError
from ..registry import ExpertRegistry
from ..requests import ServingEngine
from .api_error import ApiError, answer_error
from .api_parts import ApiParts
from .api_settings import ApiSettings
from .expert_routes import ExpertRoutes
from .gate import Gate
from .generation_routes import GenerationRoutes
from .information_routes import InformationRoutes
from .keys import Keys


def create_app(
    engine: ServingEngine,
    registry: ExpertRegistry,
    base: Base,
    *,
    settings: ApiSettings | None = None,
    keys: Keys | None = None,
) -> FastAPI:
    """Return the HTTP API of an engine, which is closed when the server stops.

    Args:
        engine: Answers requests.
        registry: Experts and mixtures that the engine answers with.
        base: The engine's; its tokenizer and its limits are used.
        settings: Limits.
        keys: Who may ask; by default everyone.

    Raises:
        FinLoraError: If the base's tokenizer cannot be served.
    """
    settings = settings or ApiSettings()
    parts = ApiParts.build(engine, registry, base, settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        engine.close()
        parts.threads.shutdown(wait=False)

    app = FastAPI(
        title="FinLoRA",
        version=version("finlora"),
        description="OpenAI's completions and chat on a base, its LoRA experts, and their mixtures.",
        lifespan=lifespan,
        # Their pages load scripts from elsewhere.
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json",
    )
    app.state.parts = parts
    for routes in (GenerationRoutes(parts), ExpertRoutes(parts), InformationRoutes(parts)):
        app.include_router(routes.router())
    for kind in (ApiError, FinLoraError, RequestValidationError, HTTPException, Exception):
        app.add_exception_handler(kind, answer_error)
    app.add_middleware(Gate, keys=keys or Keys(), settings=settings, metrics=parts.metrics)
    _describe_errors(app)
    return app


def _describe_errors(app: FastAPI) -> None:
    """Describe API keys, and leave out FastAPI's own 422, which `answer_error` turns into 400."""
    document: dict[str, Any] = app.openapi()
    for path in document["paths"].values():
        for operation in path.values():
            operation["responses"].pop("422", None)
    schemas = document["components"]["schemas"]
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    document["security"] = [{}, {"key": []}]
