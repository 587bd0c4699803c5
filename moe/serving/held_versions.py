"""Versions that running requests use: they stay loadable after they were replaced or removed."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from .registry_index import ExpertKey, IndexedExpert, IndexedMixture, RegistryIndex
from .requests import UnknownModelError
from .stored_folders import StoredFolders
from .version_leases import VersionLeases


@dataclass
class _Held:
    found: IndexedExpert | IndexedMixture
    count: int


class HeldVersions:
    """Counts who holds what, and deletes folders that nobody needs. Safe in any thread."""

    def __init__(self, index: RegistryIndex, leases: VersionLeases, folders: StoredFolders):
        """Begin with nothing held."""
        self._index, self._leases, self._folders = index, leases, folders
        self._held: dict[ExpertKey, _Held] = {}
        self._lock = threading.Lock()

    def hold(self, key: ExpertKey) -> None:
        """Keep a version until `release`.

        Raises:
            UnknownModelError: If it is not registered (any more) and nobody holds it.
        """
        with self._lock:
            if key in self._held:
                self._held[key].count += 1
                return
            found = self._look_up(key)
            if found is None or not self._leases.take(found.content):
                raise _gone(key)
            # It may have been removed between look and lease.
            if self._look_up(key) is None:
                self._leases.drop(found.content)
                raise _gone(key)
            self._held[key] = _Held(found, 1)

    def release(self, key: ExpertKey) -> None:
        """Undo one `hold`; the files go with the last one, if the version was removed.

        Raises:
            ValueError: If it is not held.
        """
        with self._lock:
            if key not in self._held:
                raise ValueError(f"{key} is released more often than it was held.")
            held = self._held[key]
            held.count -= 1
            if held.count:
                return
            del self._held[key]
            self._leases.drop(held.found.content)
        if self._index.is_garbage(held.found.content):
            # The index is told later: a write might wait for another one, and requests must not.
            self._delete(held.found.content)

    @contextmanager
    def holding(self, key: ExpertKey) -> Iterator[None]:
        """Keep a version for a while."""
        self.hold(key)
        try:
            yield
        finally:
            self.release(key)

    def expert(self, key: ExpertKey) -> IndexedExpert:
        """Return a version of an expert that is registered or held.

        Raises:
            UnknownModelError: If there is none.
        """
        held = self._held.get(key)
        found = self._index.version(key) if held is None else held.found
        if not isinstance(found, IndexedExpert):
            raise _gone(key)
        return found

    def count(self) -> int:
        """Return how many versions are held."""
        return len(self._held)

    def collect(self) -> None:
        """Delete all folders that nobody needs, and tell the index."""
        deleted = [number for number in self._index.garbage() if self._delete(number)]
        if deleted:
            with self._index.change() as writer:
                writer.executemany("DELETE FROM garbage WHERE number = ?", [(number,) for number in deleted])

    def _delete(self, number: int) -> bool:
        if not self._leases.take_alone(number):
            return False
        try:
            return self._folders.delete(number)
        finally:
            self._leases.drop_alone(number)

    def _look_up(self, key: ExpertKey) -> IndexedExpert | IndexedMixture | None:
        found = self._index.version(key)
        if found is not None:
            return found
        mixture = self._index.mixture(key.name)
        return mixture if mixture is not None and mixture.key == key else None


def _gone(key: ExpertKey) -> UnknownModelError:
    return UnknownModelError(f"There is no {key}; it was replaced, removed or never registered.")
