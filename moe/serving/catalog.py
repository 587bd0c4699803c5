"""Where the engine finds what a request names; the registry on disk is one such place."""

from collections.abc import Hashable, Mapping
from typing import Protocol, runtime_checkable

from .plan_builder import Served
from .requests import ModelChoice
from .slice_layout import Matrices


@runtime_checkable
class ModelCatalog(Protocol):
    """All models that are served. Safe in any thread."""

    def resolve(self, choice: ModelChoice) -> Served:
        """Return what a request runs on, with all its experts held until `release`.

        Equal choices give the same object while nothing is replaced.

        Raises:
            UnknownModelError: If no such model is served.
            QuarantinedModelError: If one of its experts is in quarantine.
        """
        ...

    def release(self, served: Served) -> None:
        """A request that `resolve` answered has ended."""
        ...

    def ranks(self, key: Hashable) -> Mapping[str, int]:
        """Rank of an expert by the name of each layer that it adapts, without reading its weights."""
        ...

    def matrices(self, key: Hashable) -> Matrices:
        """Read an expert's weights."""
        ...

    def quarantine(self, key: Hashable, reason: str) -> None:
        """Never use an expert again."""
        ...
