"""From a plan to a running server: load the base, open the registry, start the engine, listen."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from ....experts.base_model import Base, load_base
from ..engine import Engine, EngineSettings
from ..mixture_check import RouterBuilder
from ..registry import ExpertRegistry
from ..registry_catalog import RegistryCatalog
from .api_settings import ApiSettings
from .app import create_app
from .keys import Keys


@dataclass(frozen=True, kw_only=True)
class ServerPlan:
    """What a server serves, and how."""

    base: str
    """Embedded, a local folder or a hub id."""
    quantization: str
    registry: Path
    """Folder that keeps experts and mixtures; several servers may share it."""
    keys: Path | None = None
    """File of API keys; None lets everyone ask."""
    trust_base_name: bool = False
    """Whether experts may name another base."""
    engine: EngineSettings = field(default_factory=EngineSettings)
    api: ApiSettings = field(default_factory=ApiSettings)


@contextmanager
def open_registry(plan: ServerPlan, base: Base, build_router: RouterBuilder) -> Iterator[ExpertRegistry]:
    """Open a plan's registry for a loaded base.

    Raises:
        FinLoraError: If it was made for another base.
    """
    with ExpertRegistry(
        plan.registry, base, trust_base_name=plan.trust_base_name, build_router=build_router
    ) as registry:
        yield registry


def register(
    plan: ServerPlan,
    build_router: RouterBuilder,
    *,
    experts: Mapping[str, Path],
    mixtures: Mapping[str, Path],
) -> None:
    """Add experts and mixtures, or new versions of them, to a plan's registry.

    Args:
        plan: Names base and registry.
        build_router: Makes a mixture's router, such as `finlora.router.loading.build_router`.
        experts: Folders by the names under which they are served.
        mixtures: The same of mixtures.

    Raises:
        FinLoraError: If one cannot be served.
    """
    with open_registry(plan, load_base(plan.base, plan.quantization), build_router) as registry:
        _add(registry, experts, mixtures)


def _add(registry: ExpertRegistry, experts: Mapping[str, Path], mixtures: Mapping[str, Path]) -> None:
    if experts:
        registry.bulk_add(experts, replace=True)
    for name, folder in mixtures.items():
        registry.add_mixture(name, folder, replace=True)


@contextmanager
def open_app(
    plan: ServerPlan,
    build_router: RouterBuilder,
    *,
    experts: Mapping[str, Path] = {},
    mixtures: Mapping[str, Path] = {},
) -> Iterator[FastAPI]:
    """Load the base and start an engine; yield the application, which closes the engine when it stops.

    Args:
        plan: What is served.
        build_router: Makes a mixture's router, such as `finlora.router.loading.build_router`.
        experts: Folders to register first, by name.
        mixtures: The same of mixtures.

    Raises:
        FinLoraError: If base, registry or keys cannot be used.
    """
    keys = Keys() if plan.keys is None else Keys.read(plan.keys)
    base = load_base(plan.base, plan.quantization)
    with open_registry(plan, base, build_router) as registry:
        _add(registry, experts, mixtures)
        engine = Engine(base, RegistryCatalog(registry, base, build_router), plan.engine)
        try:
            yield create_app(engine, registry, base, settings=plan.api, keys=keys)
        finally:
            engine.close()


def listen(app: FastAPI, *, host: str, port: int) -> None:
    """Answer until the process is interrupted; running answers get ten seconds to end.

    Args:
        app: What `open_app` yields.
        host: Address to listen at.
        port: Port to listen at; 0 takes a free one, which is printed.
    """
    uvicorn.run(app, host=host, port=port, ws="none", access_log=False, timeout_graceful_shutdown=10)
