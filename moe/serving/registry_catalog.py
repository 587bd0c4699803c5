"""The registry on disk as the engine's catalog: what a request names, with its experts held while it runs."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import cast

from ...experts.base_model import Base
from ..checkpoint import read_mixture
from .mixture_check import RouterBuilder
from .plan_builder import Served
from .registry import ExpertKey, ExpertRegistry, RegisteredMixture
from .requests import BASE_MODEL, ModelChoice, UnknownModelError
from .served_mixture import ServedMixture
from .served_weights import ServedWeights
from .slice_layout import Matrices

IDLE_MODELS = 256
"""Models of ended requests that are kept, since a mixture's router takes a while to read."""


@dataclass
class _Entry:
    served: Served
    keys: tuple[ExpertKey, ...]
    users: int = 0


class RegistryCatalog:
    """Models by what requests name. Safe in any thread."""

    def __init__(self, registry: ExpertRegistry, base: Base, build_router: RouterBuilder):
        """Serve what a registry has.

        Args:
            registry: Opened for `base`.
            base: What is served.
            build_router: Makes a mixture's router, such as `finlora.router.loading.build_router`.
        """
        self._registry, self._base, self._build_router = registry, base, build_router
        self._entries: OrderedDict[Hashable, _Entry] = OrderedDict()
        self._names: dict[Served, Hashable] = {}
        self._lock = threading.Lock()

    def resolve(self, choice: ModelChoice) -> Served:
        """Return what a request runs on, with its experts held until `release`.

        Raises:
            UnknownModelError: If no such model is served; the message has near names.
            QuarantinedModelError: If one of its experts is in quarantine.
        """
        while True:
            name, keys, make = self._look_up(choice)
            try:
                self._hold(keys)
            except UnknownModelError:
                # Replaced or removed since it was looked up: look again, which says which of the two.
                continue
            with ExitStack() as stack:
                for key in keys:
                    stack.callback(self._registry.release, key)
                served = self._use(name, keys, make)
                if served is not None:
                    stack.pop_all()
                    return served

    def release(self, served: Served) -> None:
        """A request that `resolve` answered has ended."""
        with self._lock:
            name = self._names[served]
            entry = self._entries[name]
            entry.users -= 1
            self._entries.move_to_end(name)
            self._forget_idle()
        for key in entry.keys:
            self._registry.release(key)

    def ranks(self, key: Hashable) -> Mapping[str, int]:
        """Rank of an expert by the name of each layer that it adapts, without reading its weights."""
        return self._registry.ranks(cast(ExpertKey, key))

    def matrices(self, key: Hashable) -> Matrices:
        """Read an expert's weights."""
        return self._registry.matrices(cast(ExpertKey, key))

    def quarantine(self, key: Hashable, reason: str) -> None:
        """Never use this version of an expert again."""
        self._registry.quarantine(cast(ExpertKey, key), reason)

    def _look_up(
        self, choice: ModelChoice
    ) -> tuple[Hashable, tuple[ExpertKey, ...], Callable[[], Served | None]]:
        if choice == BASE_MODEL:
            return (), (), ServedWeights
        if isinstance(choice, str):
            found = self._registry.find(choice)
            if isinstance(found, RegisteredMixture):
                keys = tuple(found.experts.values())
                return found.key, keys, lambda: self._read_mixture(found)
            weights = {found: 1.0}
        else:
            weights = {self._registry.resolve(name): float(weight) for name, weight in choice.items()}
        keys = tuple(weights)
        return tuple(weights.items()), keys, lambda: ServedWeights(keys, tuple(weights.values()))

    def _hold(self, keys: tuple[ExpertKey, ...]) -> None:
        with ExitStack() as stack:
            for key in keys:
                self._registry.hold(key)
                stack.callback(self._registry.release, key)
            stack.pop_all()

    def _use(
        self, name: Hashable, keys: tuple[ExpertKey, ...], make: Callable[[], Served | None]
    ) -> Served | None:
        """Count one more request on a model; None if its files are gone."""
        with self._lock:
            entry = self._entries.get(name)
            if entry is None:
                served = make()
                if served is None:
                    return None
                entry = self._entries[name] = _Entry(served, keys)
                self._names[served] = name
            entry.users += 1
            return entry.served

    def _read_mixture(self, mixture: RegisteredMixture) -> ServedMixture | None:
        try:
            self._registry.hold(mixture.key)
        except UnknownModelError:
            return None
        try:
            files = read_mixture(mixture.folder)
        finally:
            self._registry.release(mixture.key)
        modules = files.module_names or ()
        router = self._build_router(
            files, self._base, module_count=len(modules), expert_count=len(mixture.experts)
        )
        router = router.requires_grad_(False).eval().to(self._base.model.device)
        return ServedMixture(mixture.key.name, tuple(mixture.experts.values()), modules, router, files.mode)

    def _forget_idle(self) -> None:
        for name in [name for name, entry in self._entries.items() if not entry.users][:-IDLE_MODELS]:
            del self._names[self._entries.pop(name).served]
