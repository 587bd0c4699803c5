"""The resolved configuration of a benchmark run: all that determines its numbers; and whose a folder is."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from ..experts.atomic_write import write_json
from ..experts.errors import FinLoraError
from .budgets import Budget, budget_from_dict
from .layout import EXPERT_PREFIX
from .methods import Method, make_methods
from .protocols import PROTOCOLS, EvaluationProtocol
from .results import IN_DISTRIBUTION
from .scope import Scope


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """What determines the numbers of a run.

    Attributes:
        suite: Name of the suite.
        tasks: Names of its tasks that are asked.
        base: Name of the base.
        quantization: How the base is stored.
        seed: Seed of experts, samples and bootstrap.
        more_expert_seeds: Further seeds of experts, with all that stands on them; the samples stay the same.
        router_seeds: Seeds of the routers.
        compare: Which methods and protocols were asked for.
        resamples: Draws of the bootstrap.
        budget: How much is trained and asked, and with which settings.
        data: For every task its version and, by split, number and hash of its examples.
        given_experts: Task -> SHA-256 of the weights of its expert, where it was given and not trained.
    """

    suite: str
    tasks: tuple[str, ...]
    base: str
    quantization: str
    seed: int
    router_seeds: tuple[int, ...]
    more_expert_seeds: tuple[int, ...] = ()
    compare: str = "core"
    resamples: int
    budget: Budget
    data: Mapping[str, Mapping[str, Any]]
    given_experts: Mapping[str, str] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """The configuration as JSON gives it back."""
        values = json.loads(json.dumps(dataclasses.asdict(self)))
        # Runs that train all experts keep the hash they had before experts could be given.
        return values if self.given_experts else {k: v for k, v in values.items() if k != "given_experts"}

    @property
    def methods(self) -> dict[str, Method]:
        """The methods that are compared, by name."""
        return self.methods_without(())

    def methods_without(self, without: Collection[str]) -> dict[str, Method]:
        """The methods as they are where the experts of some tasks are left out."""
        tasks = tuple(task for task in self.tasks if task not in without)
        budget = self.budget
        return make_methods(
            tasks, self.router_seeds, budget.routers, budget.further, multitask=budget.multitask
        )

    @property
    def protocols(self) -> list[EvaluationProtocol]:
        """The protocols that make sense for the run's tasks."""
        named = [PROTOCOLS[name] for name in self.budget.protocols]
        return [protocol for protocol in named if protocol.asked(self.tasks)]

    def compared_in(self, protocol: EvaluationProtocol) -> list[str]:
        """Names of the methods that are asked in a protocol, in the order of reports."""
        if protocol.name == IN_DISTRIBUTION:
            return list(self.methods)
        left_out = self.budget.only_in_distribution if protocol.leaves_out else ()
        if protocol.task_by_task:
            left_out += self.budget.not_task_by_task
        return [
            method.name
            for method in self.methods.values()
            if not method.name.startswith(EXPERT_PREFIX)
            and method.name not in left_out
            and (method.is_one_model or not protocol.in_one_batch)
        ]

    def expert_seeds_of(self, protocol: EvaluationProtocol) -> tuple[int | None, ...]:
        """The expert seeds of a protocol; all but the first protocol have the run's own alone."""
        return (None, *self.more_expert_seeds) if protocol.name == IN_DISTRIBUTION else (None,)

    def training_seed(self, scope: Scope) -> int:
        """Seed of the experts of a scope and of what is trained on them."""
        return self.seed if scope.expert_seed is None else scope.expert_seed

    @property
    def hash(self) -> str:
        """First 12 digits of the SHA-256 of the configuration."""
        return hashlib.sha256(json.dumps(self.as_json(), sort_keys=True).encode()).hexdigest()[:12]


def read_config(path: Path) -> RunConfig:
    """Read the configuration of a run.

    Raises:
        FinLoraError: The file is missing, or is not of a run of this version.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        names = ("tasks", "router_seeds", "more_expert_seeds")
        lists = {name: tuple(values[name]) for name in names}
        return RunConfig(**values | lists | {"budget": budget_from_dict(values["budget"])})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FinLoraError(
            f"{path} is no configuration of a benchmark run of this version of FinLoRA ({error})."
        ) from error


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
