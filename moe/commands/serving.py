"""Commands that serve base, experts and mixtures to many at once."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from ...experts.errors import FinLoraError
from .answering import Quantization

if TYPE_CHECKING:
    from ..serving.http.server import ServerPlan


def serve(
    mixtures: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="MIXTURE")] = (),
    experts: tuple[Path, ...] = (),
    base: str | None = None,
    quantization: Quantization | None = None,
    registry: Path = Path("runs/serving"),
    host: str = "127.0.0.1",
    port: int = 8000,
    keys: Path | None = None,
    expert_source: Path | None = None,
    trust_base_name: bool = False,
    memory_pages: int = 2048,
    max_requests: int = 64,
    max_queue: int = 1024,
    policy: Literal["fcfs", "abort"] = "fcfs",
    two_pass_mixtures: bool = True,
    ray: int | None = None,
) -> None:
    """Serve the base, experts and mixtures through OpenAI's API, with a page at /.

    All share batches. What was registered before is served again. Requests may also name weights of experts.

    Args:
        mixtures: Folders of mixtures, each served under its folder's name.
        experts: Folders of experts, or folders that hold such, each served under its folder's name.
        base: Embedded, a local folder or a hub id; by default the one that the first mixture or expert names.
        quantization: How to store the base; by default as the first mixture or expert says, else nf4.
        registry: Folder that keeps what is registered, for one base.
        host: Address to listen at; 0.0.0.0 lets other machines ask, which needs keys.
        port: Port to listen at; 0 takes a free one.
        keys: TOML file of API keys and their limits; without it everyone who reaches the port may ask.
        expert_source: Folder from which POST /v1/experts may add experts by path; without it uploads only.
        trust_base_name: Take experts that name another base, for one base known under two names.
        memory_pages: Pages of 16 tokens for keys, values and experts.
        max_requests: Most requests answered in one batch.
        max_queue: Most requests that wait; more are answered with 429.
        policy: First come, first served; or S-LoRA's early abort, which drops requests whose first token
            would come after more than 6 seconds.
        two_pass_mixtures: Serve mixtures in mode exact; without, a token takes half the cache.
        ray: Number of replicas on Ray Serve, each request going to one that has its experts on the device.
    """
    named, mixed = _named(_expert_folders(experts)), _named(mixtures)
    of_base = _base_of([*mixed.values(), *named.values()])
    plan = _plan(
        expert_source,
        policy,
        engine={
            "memory_pages": memory_pages,
            "max_requests": max_requests,
            "max_queue": max_queue,
            "two_pass_mixtures": two_pass_mixtures,
        },
        base=base or of_base[0],
        quantization=quantization or of_base[1],
        registry=registry,
        keys=keys,
        trust_base_name=trust_base_name,
    )
    _start(plan, named, mixed, ray=ray, host=host, port=port)


def _plan(
    expert_source: Path | None, policy: Literal["fcfs", "abort"], engine: dict[str, Any], **fields: Any
) -> "ServerPlan":
    try:
        from ..serving.http.server import ServerPlan
    except ModuleNotFoundError as error:
        raise FinLoraError(f"Serving needs {error.name}; pip install finlora[serving] brings it.") from error
    from ..serving.admission import AdmissionSettings
    from ..serving.engine import EngineSettings
    from ..serving.http.api_settings import ApiSettings

    sizes = EngineSettings(admission=AdmissionSettings(policy=policy), **engine)
    return ServerPlan(engine=sizes, api=ApiSettings(expert_source=expert_source), **fields)


def _start(
    plan: "ServerPlan",
    experts: Mapping[str, Path],
    mixtures: Mapping[str, Path],
    *,
    ray: int | None,
    host: str,
    port: int,
) -> None:
    from ...router.loading import build_router
    from ..serving.http.server import listen, open_app, register

    if ray is not None:
        register(plan, build_router, experts=experts, mixtures=mixtures)
        _serve_on_ray(plan, ray, host, port)
        return
    with open_app(plan, build_router, experts=experts, mixtures=mixtures) as app:
        listen(app, host=host, port=port)


def _serve_on_ray(plan: "ServerPlan", count: int, host: str, port: int) -> None:
    """Start replicas and wait until the process is interrupted."""
    from ...router.loading import build_router

    if count < 1 or port == 0:
        raise FinLoraError(f"Ray needs at least one replica and a port; given: {count} and port {port}.")
    try:
        from ..serving.replicas import run_replicas
    except ModuleNotFoundError as error:
        raise FinLoraError(f"Replicas need {error.name}; pip install 'ray[serve]' brings it.") from error
    run_replicas(plan, build_router, count=count, host=host, port=port)


def _expert_folders(folders: Sequence[Path]) -> list[Path]:
    """Return the folders that are experts, and the experts in those that are not."""
    from ...experts.adapter import CONFIG_FILE

    found = []
    for folder in folders:
        inside = [folder] if (folder / CONFIG_FILE).is_file() else sorted(folder.glob(f"*/{CONFIG_FILE}"))
        if not inside:
            raise FinLoraError(f"{folder} is no expert and holds none; give folders with {CONFIG_FILE}.")
        found += [path.parent if path.name == CONFIG_FILE else path for path in inside]
    return found


def _named(folders: Sequence[Path]) -> Mapping[str, Path]:
    """Return folders by their own names."""
    named: dict[str, Path] = {}
    for folder in folders:
        name = folder.resolve().name
        if name in named:
            raise FinLoraError(f"{named[name]} and {folder} would both be served as {name}; rename one.")
        named[name] = folder
    return named


def _base_of(folders: Sequence[Path]) -> tuple[str, str]:
    """Return base and quantization that the first of the folders names."""
    from ...benchmarks.models import identify

    source = identify(str(folders[0]) if folders else "base")
    return source.base, source.quantization
