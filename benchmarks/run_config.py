"""The resolved configuration of a benchmark run: all that determines its numbers; and whose a folder is."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from ..experts.atomic_write import write_json
from ..experts.errors import FinLoraError
from .budgets import Budget
from .methods import Method, make_methods


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """What determines the numbers of a run.

    Attributes:
        suite: Name of the suite.
        tasks: Names of its tasks that are asked.
        base: Name of the base.
        quantization: How the base is stored.
        seed: Seed of experts, samples and bootstrap.
        router_seeds: Seeds of the routers.
        resamples: Draws of the bootstrap.
        budget: How much is trained and asked, and with which settings.
        data: For every task its version and, by split, number and hash of its examples.
    """

    suite: str
    tasks: tuple[str, ...]
    base: str
    quantization: str
    seed: int
    router_seeds: tuple[int, ...]
    resamples: int
    budget: Budget
    data: Mapping[str, Mapping[str, Any]]

    def as_json(self) -> dict[str, Any]:
        """The configuration as JSON gives it back."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    @property
    def methods(self) -> dict[str, Method]:
        """The methods that are compared, by name."""
        return make_methods(self.tasks, self.router_seeds, self.budget.routers)

    @property
    def hash(self) -> str:
        """First 12 digits of the SHA-256 of the configuration."""
        return hashlib.sha256(json.dumps(self.as_json(), sort_keys=True).encode()).hexdigest()[:12]


@runtime_checkable
class Configuration(Protocol):
    """All that determines the numbers of a run of some kind."""

    def as_json(self) -> dict[str, Any]:
        """The configuration as JSON gives it back."""
        ...


def claim(path: Path, config: Configuration) -> None:
    """Write the configuration of a new run, or check that of a run that is resumed.

    Args:
        path: `config.json` in the run's folder.
        config: What is to be run.

    Raises:
        FinLoraError: The folder belongs to a run with another configuration, or to something else.
    """
    folder = path.parent
    if path.exists():
        try:
            before = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise FinLoraError(f"{path} cannot be read ({error}); choose another --name.") from error
        if differences := list(_differences(before, config.as_json())):
            shown = "; ".join(differences[:3]) + ("; …" if len(differences) > 3 else "")
            raise FinLoraError(
                f"{folder} holds a run with another configuration ({shown}); choose another --name, as runs "
                "are never mixed."
            )
        return
    strangers = [entry.name for entry in folder.iterdir() if not entry.name.startswith(".")]
    if strangers:
        raise FinLoraError(
            f"{folder} exists and is no benchmark run (it holds {strangers[0]}); choose another --name."
        )
    write_json(path, config.as_json())


def _differences(before: Any, now: Any, key: str = "") -> Iterator[str]:
    if isinstance(before, dict) and isinstance(now, dict):
        for name in sorted(before.keys() | now.keys()):
            inner = f"{key}.{name}" if key else name
            yield from _differences(before.get(name), now.get(name), inner)
    elif before != now:
        yield f"{key} was {before!r}, now {now!r}"
