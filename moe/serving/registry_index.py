"""What is registered, as one SQLite file: names, versions, layers of each expert, mixtures, quarantine.

SQLite and not a journal of our own: a change of thousands of rows is one transaction, a kill leaves the state
before or after it, several processes may have it open, and a name is looked up without all names in memory.
The index holds no weights and knows no folder but by its number.
"""

import json
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from ...experts.errors import FinLoraError

FORMAT_VERSION = 1
WAIT_SECONDS = 60.0
"""How long a process waits for another that writes."""

SCHEMA = """
CREATE TABLE about (field TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE layers (id INTEGER PRIMARY KEY, layers TEXT NOT NULL UNIQUE);
CREATE TABLE contents (number INTEGER PRIMARY KEY AUTOINCREMENT, digest TEXT UNIQUE, weights_sha256 TEXT,
    layers INTEGER REFERENCES layers, bytes INTEGER NOT NULL);
CREATE TABLE garbage (number INTEGER PRIMARY KEY);
CREATE TABLE last_versions (name TEXT PRIMARY KEY, version INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE experts (name TEXT NOT NULL, version INTEGER NOT NULL,
    content INTEGER NOT NULL REFERENCES contents, state TEXT NOT NULL, reason TEXT,
    PRIMARY KEY (name, version)) WITHOUT ROWID;
CREATE INDEX experts_by_content ON experts (content);
CREATE UNIQUE INDEX served_experts ON experts (name) WHERE state = 'served';
CREATE INDEX quarantined_experts ON experts (name) WHERE reason IS NOT NULL;
CREATE TABLE mixtures (name TEXT PRIMARY KEY, version INTEGER NOT NULL,
    content INTEGER NOT NULL REFERENCES contents) WITHOUT ROWID;
CREATE INDEX mixtures_by_content ON mixtures (content);
CREATE TABLE mixture_experts (content INTEGER NOT NULL REFERENCES contents, position INTEGER NOT NULL,
    called TEXT NOT NULL, name TEXT NOT NULL, version INTEGER NOT NULL, PRIMARY KEY (content, position),
    FOREIGN KEY (name, version) REFERENCES experts) WITHOUT ROWID;
CREATE INDEX mixtures_by_expert ON mixture_experts (name, version);
"""
"""`contents` are stored folders; several experts with equal files share one. `garbage` are folders still to
be deleted. An expert is `served`, or `kept` for a mixture only; `called` is its name inside the mixture."""


class ExpertKey(NamedTuple):
    """One version of an expert or mixture; versions of a name are counted from 1 and never used again."""

    name: str
    version: int

    def __str__(self) -> str:
        """Return it as messages and metrics show it, such as `finer@2`."""
        return f"{self.name}@{self.version}"


class LayerShape(NamedTuple):
    """What an expert adds to one linear layer."""

    rank: int
    d_in: int
    d_out: int
    scale: float
    """alpha / rank, or alpha / sqrt(rank) for rsLoRA."""


@dataclass(frozen=True)
class IndexedExpert:
    """One version of an expert."""

    key: ExpertKey
    content: int
    """Number of the folder with its files."""
    layers: int
    """Number of its layers' shapes, which many experts share."""
    reason: str | None
    """Why it is in quarantine; None if it is not."""


@dataclass(frozen=True)
class IndexedMixture:
    """A mixture."""

    key: ExpertKey
    content: int
    experts: Mapping[str, ExpertKey]
    """By name inside the mixture, in the order of the router's outputs."""


class RegistryIndex:
    """The SQLite file. Reads see the last finished change and never wait for one; safe in any thread."""

    def __init__(self, file: Path, about: dict[str, str]):
        """Open or make it.

        Args:
            file: The SQLite file.
            about: What must agree with what is stored, such as the base's revision.

        Raises:
            FinLoraError: If it is damaged, of a newer FinLoRA, or about something else.
        """
        self._file = file
        self._read_lock, self._write_lock = threading.Lock(), threading.Lock()
        with _explained(file):
            self._writer = _connect(file)
            self._make(about | {"format_version": str(FORMAT_VERSION)})
            self._reader = _connect(file)
        # Thousands of experts have a few shapes among them.
        self.layer_shapes = lru_cache(256)(self._layer_shapes)

    def close(self) -> None:
        """Close the file."""
        self._reader.close()
        self._writer.close()

    @contextmanager
    def change(self) -> Iterator[sqlite3.Connection]:
        """One transaction: all of it happens or, if anything is raised or the process dies, nothing."""
        with self._write_lock, _explained(self._file):
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield self._writer
                self._writer.execute("COMMIT")
            except BaseException:
                if self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")
                raise

    def expert(self, name: str) -> IndexedExpert | None:
        """Return the version that is served under a name."""
        return self._expert("name = ? AND state = 'served'", (name,))

    def version(self, key: ExpertKey) -> IndexedExpert | None:
        """Return one version of an expert, served or kept."""
        return self._expert("name = ? AND version = ?", tuple(key))

    def mixture(self, name: str) -> IndexedMixture | None:
        """Return a mixture."""
        rows = self._read(
            "SELECT m.version, m.content, e.called, e.name, e.version FROM mixtures m "
            "JOIN mixture_experts e USING (content) WHERE m.name = ? ORDER BY e.position",
            (name,),
        )
        if not rows:
            return None
        experts = {called: ExpertKey(expert, version) for _, _, called, expert, version in rows}
        return IndexedMixture(ExpertKey(name, rows[0][0]), rows[0][1], experts)

    def names(self) -> list[str]:
        """Return the names of all served experts, sorted."""
        return self._column("SELECT name FROM experts WHERE state = 'served' ORDER BY name")

    def mixture_names(self) -> list[str]:
        """Return the names of all mixtures, sorted."""
        return self._column("SELECT name FROM mixtures ORDER BY name")

    def versions(self, name: str) -> list[int]:
        """Return the versions of an expert that are served or kept."""
        return self._column("SELECT version FROM experts WHERE name = ? ORDER BY version", (name,))

    def quarantined(self) -> dict[ExpertKey, str]:
        """Return all experts in quarantine, with the reason."""
        rows = self._read("SELECT name, version, reason FROM experts WHERE reason IS NOT NULL ORDER BY name")
        return {ExpertKey(name, version): reason for name, version, reason in rows}

    def content(self, digest: str) -> int | None:
        """Return the number of the folder with files of this digest."""
        return next(iter(self._column("SELECT number FROM contents WHERE digest = ?", (digest,))), None)

    def content_of(self, content: int) -> tuple[str, int] | None:
        """Return SHA-256 of the weights in a folder, and the number of their layers' shapes."""
        query = "SELECT weights_sha256, layers FROM contents WHERE number = ?"
        return next(iter(self._read(query, (content,))), None)

    def is_garbage(self, content: int) -> bool:
        """Whether a folder is still to be deleted."""
        return bool(self._read("SELECT 1 FROM garbage WHERE number = ?", (content,)))

    def garbage(self) -> list[int]:
        """Return the numbers of folders that are still to be deleted."""
        return self._column("SELECT number FROM garbage")

    def stored_bytes(self) -> tuple[int, int]:
        """Return how many folders are stored, and their bytes."""
        return self._read("SELECT count(*), coalesce(sum(bytes), 0) FROM contents")[0]

    def _layer_shapes(self, layers: int) -> Mapping[str, LayerShape]:
        text = self._column("SELECT layers FROM layers WHERE id = ?", (layers,))[0]
        return {name: LayerShape(*shape) for name, shape in json.loads(text).items()}

    def _expert(self, condition: str, values: Sequence[Any]) -> IndexedExpert | None:
        rows = self._read(
            "SELECT e.name, e.version, e.content, c.layers, e.reason FROM experts e "
            f"JOIN contents c ON c.number = e.content WHERE {condition}",
            values,
        )
        if not rows:
            return None
        name, version, content, layers, reason = rows[0]
        return IndexedExpert(ExpertKey(name, version), content, layers, reason)

    def _column(self, query: str, values: Sequence[Any] = ()) -> list[Any]:
        return [row[0] for row in self._read(query, values)]

    def _read(self, query: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with self._read_lock, _explained(self._file):
            return self._reader.execute(query, values).fetchall()

    def _make(self, about: Mapping[str, str]) -> None:
        with self.change() as writer:
            if not writer.execute("SELECT 1 FROM sqlite_master").fetchall():
                for statement in SCHEMA.strip().rstrip(";").split(";\n"):
                    writer.execute(statement)
                writer.executemany("INSERT INTO about VALUES (?, ?)", about.items())
            stored = dict(writer.execute("SELECT field, value FROM about"))
        for field, value in about.items():
            if stored.get(field) != value:
                raise FinLoraError(
                    f"The registry {self._file.parent} has {field.replace('_', ' ')} {stored.get(field)}, "
                    f"not {value}; give that, or another folder."
                )


def _connect(file: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(file, timeout=WAIT_SECONDS, isolation_level=None, check_same_thread=False)
    # Readers go on while somebody writes; a finished change survives a power cut.
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")
    return connection


@contextmanager
def _explained(file: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.IntegrityError:
        raise
    except sqlite3.Error as error:
        raise FinLoraError(
            f"The registry's index {file} cannot be used ({error}); check the disk, or restore it."
        ) from error
