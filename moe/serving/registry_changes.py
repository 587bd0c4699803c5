"""The changes of a registry's index, each made inside `RegistryIndex.change`."""

import json
from collections.abc import Mapping, Sequence, Set
from sqlite3 import Connection

from ...experts.errors import FinLoraError
from .registry_index import ExpertKey, LayerShape


class NameTakenError(FinLoraError):
    """A model of this name is registered already (409)."""


def check_free(writer: Connection, name: str, *, mixture: bool, replace: bool) -> None:
    """Check that a model may be registered under a name.

    Raises:
        NameTakenError: If the other kind has the name, or the same kind and `replace` is not set.
    """
    is_mixture = bool(writer.execute("SELECT 1 FROM mixtures WHERE name = ?", (name,)).fetchall())
    if is_mixture or serves(writer, name):
        kind = "a mixture" if is_mixture else "an expert"
        if is_mixture is not mixture:
            raise NameTakenError(f"There is {kind} named {name} already; choose another name, or remove it.")
        if not replace:
            raise NameTakenError(
                f"There is {kind} named {name} already; choose another, or say that it is to be replaced."
            )


def serves(writer: Connection, name: str) -> bool:
    """Whether an expert is served under a name."""
    query = "SELECT 1 FROM experts WHERE name = ? AND state = 'served'"
    return bool(writer.execute(query, (name,)).fetchall())


def next_version(writer: Connection, name: str) -> int:
    """Count a name's versions on; also after a removal, since versions may still be in use or in logs."""
    writer.execute(
        "INSERT INTO last_versions VALUES (?, 1) ON CONFLICT (name) DO UPDATE SET version = version + 1",
        (name,),
    )
    return writer.execute("SELECT version FROM last_versions WHERE name = ?", (name,)).fetchone()[0]


def put_content(
    writer: Connection,
    *,
    size: int,
    digest: str | None = None,
    weights_sha256: str | None = None,
    layers: Mapping[str, LayerShape] | None = None,
) -> int:
    """Enter a stored folder; returns its number. A mixture's folder has a size only."""
    number = None
    if layers is not None:
        text = json.dumps({name: list(shape) for name, shape in layers.items()})
        writer.execute("INSERT INTO layers (layers) VALUES (?) ON CONFLICT DO NOTHING", (text,))
        number = writer.execute("SELECT id FROM layers WHERE layers = ?", (text,)).fetchone()[0]
    cursor = writer.execute(
        "INSERT INTO contents (digest, weights_sha256, layers, bytes) VALUES (?, ?, ?, ?)",
        (digest, weights_sha256, number, size),
    )
    assert cursor.lastrowid is not None
    return cursor.lastrowid


def put_expert(writer: Connection, name: str, content: int) -> ExpertKey:
    """Serve the expert in a stored folder under a name, instead of the one that was served before."""
    before = _keep_only(writer, name)
    key = ExpertKey(name, next_version(writer, name))
    writer.execute("INSERT INTO experts VALUES (?, ?, ?, 'served', NULL)", (*key, content))
    # Only now, since both versions may have the same files.
    _drop_unneeded(writer, name, before)
    return key


def drop_expert(writer: Connection, name: str) -> None:
    """Serve nothing under a name any more; mixtures keep their version."""
    _drop_unneeded(writer, name, _keep_only(writer, name))


def put_mixture(writer: Connection, name: str, content: int, experts: Mapping[str, int]) -> ExpertKey:
    """Serve a mixture, instead of the one of this name that was served before.

    Args:
        writer: Of the change.
        name: Of the mixture.
        content: Number of the folder with its description and router.
        experts: Number of the folder of each expert, by its name inside the mixture.
    """
    key = ExpertKey(name, next_version(writer, name))
    used: set[ExpertKey] = set()
    for position, (called, number) in enumerate(experts.items()):
        expert = _expert_of(writer, key, called, number, used)
        used.add(expert)
        writer.execute(
            "INSERT INTO mixture_experts VALUES (?, ?, ?, ?, ?)", (content, position, called, *expert)
        )
    # Only now, since the mixture before may have kept the same experts.
    drop_mixture(writer, name)
    writer.execute("INSERT INTO mixtures VALUES (?, ?, ?)", (*key, content))
    return key


def drop_mixture(writer: Connection, name: str) -> None:
    """Serve a mixture no more, nor what was kept for it alone."""
    for (mixture,) in writer.execute("SELECT content FROM mixtures WHERE name = ?", (name,)).fetchall():
        experts = writer.execute(
            "SELECT e.name, e.content FROM mixture_experts m JOIN experts e USING (name, version) "
            "WHERE m.content = ?",
            (mixture,),
        ).fetchall()
        writer.execute("DELETE FROM mixture_experts WHERE content = ?", (mixture,))
        writer.execute("DELETE FROM mixtures WHERE name = ?", (name,))
        _discard_unneeded(writer, mixture)
        for expert, content in experts:
            _drop_unneeded(writer, expert, [content])


def _keep_only(writer: Connection, name: str) -> list[int]:
    """Stop serving a name, for now without dropping anything; returns the folders that were served."""
    served = "name = ? AND state = 'served'"
    contents = writer.execute(f"SELECT content FROM experts WHERE {served}", (name,)).fetchall()
    writer.execute(f"UPDATE experts SET state = 'kept' WHERE {served}", (name,))
    return [content for (content,) in contents]


def _expert_of(
    writer: Connection, mixture: ExpertKey, called: str, content: int, used: Set[ExpertKey]
) -> ExpertKey:
    """A version with these files; best one of that name, so that all mixtures share it on the device."""
    rows = writer.execute(
        "SELECT name, version FROM experts WHERE content = ? "
        "ORDER BY name = ? DESC, state = 'served' DESC, name, version",
        (content, called),
    ).fetchall()
    for row in rows:
        if row not in used:
            return ExpertKey(*row)
    # The slash keeps it apart from every name that a user may give.
    key = ExpertKey(f"{mixture.name}/{called}", mixture.version)
    writer.execute("INSERT INTO experts VALUES (?, ?, ?, 'kept', NULL)", (*key, content))
    return key


def _drop_unneeded(writer: Connection, name: str, contents: Sequence[int]) -> None:
    """Drop versions of a name that no mixture has, and those of some folders that nothing has any more."""
    writer.execute(
        "DELETE FROM experts WHERE name = ? AND state = 'kept' AND NOT EXISTS "
        "(SELECT 1 FROM mixture_experts m WHERE m.name = experts.name AND m.version = experts.version)",
        (name,),
    )
    for content in contents:
        _discard_unneeded(writer, content)


def _discard_unneeded(writer: Connection, content: int) -> None:
    needed = writer.execute(
        "SELECT 1 FROM experts WHERE content = :number "
        "UNION ALL SELECT 1 FROM mixtures WHERE content = :number",
        {"number": content},
    ).fetchall()
    if not needed:
        writer.execute("DELETE FROM contents WHERE number = ?", (content,))
        writer.execute("INSERT OR IGNORE INTO garbage VALUES (?)", (content,))
