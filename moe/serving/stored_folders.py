"""The files of experts and mixtures inside a registry: copied in without trust, placed by number, deleted."""

import fcntl
import hashlib
import os
import shutil
import stat
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from ...experts.errors import FinLoraError

CHUNK = 2**20
LOCK_FILE = "lock"


class StoredFolders:
    """`contents/<number>/` for what is registered, `incoming/<process>/` for what is being checked.

    Nobody's names become paths. What a process that died left in `incoming` is deleted at the next opening.
    """

    def __init__(self, folder: Path):
        """Make the folders and delete what dead processes left; one process at a time may do so."""
        self._contents, self._all_incoming = folder / "contents", folder / "incoming"
        self._contents.mkdir(exist_ok=True)
        self._all_incoming.mkdir(exist_ok=True)
        for left in self._all_incoming.iterdir():
            lock = _lock(left)
            if lock is not None:
                shutil.rmtree(left, ignore_errors=True)
                os.close(lock)
        self._incoming = self._all_incoming / uuid.uuid4().hex
        self._incoming.mkdir()
        self._alive = _lock(self._incoming)

    def close(self) -> None:
        """Delete what is still being checked."""
        shutil.rmtree(self._incoming, ignore_errors=True)
        if self._alive is not None:
            os.close(self._alive)

    def path(self, number: int) -> Path:
        """Return the folder of a number."""
        return self._contents / str(number)

    @contextmanager
    def staging(self) -> Iterator[Path]:
        """An empty folder for files to be checked, deleted in the end; `place` moves folders out of it."""
        staged = self._incoming / uuid.uuid4().hex
        try:
            staged.mkdir()
            yield staged
        except OSError as error:
            raise FinLoraError(f"{self._contents.parent} cannot be written: {error.strerror}.") from error
        finally:
            shutil.rmtree(staged, ignore_errors=True)

    def place(self, staged: Path, number: int) -> None:
        """Move a folder that was checked to its place; only inside the change that enters its number."""
        target = self.path(number)
        if target.exists():
            # A process died after this step and before the end of its change: nobody knows that folder.
            shutil.rmtree(target)
        os.rename(staged, target)

    def delete(self, number: int) -> bool:
        """Delete a folder, or what an earlier attempt left of it; whether nothing of it is left."""
        shutil.rmtree(self.path(number), ignore_errors=True)
        return not self.path(number).exists()

    def flush(self) -> None:
        """Bring to the disk what was placed."""
        _flush(self._contents)


def digest_of(source: Path, limits: Mapping[str, int]) -> str:
    """Return the SHA-256 of the files that `copy_in` would copy."""
    return _read_in(source, limits, None)


def copy_in(source: Path, limits: Mapping[str, int], target: Path) -> str:
    """Copy named files of a folder that may be hostile.

    Symbolic links, devices and pipes are refused, and no more is read than the limits say.

    Args:
        source: The folder.
        limits: Largest allowed size in bytes of each file, by name; files that are absent are skipped.
        target: An empty folder.

    Returns:
        SHA-256 of the files' names, sizes and bytes, as they were copied.

    Raises:
        FinLoraError: If the folder or a file cannot be read, is no regular file, or is too large.
    """
    return _read_in(source, limits, target)


def _read_in(source: Path, limits: Mapping[str, int], target: Path | None) -> str:
    digest = hashlib.sha256()
    try:
        folder = os.open(source, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        raise FinLoraError(f"{source} is not a folder that can be read; give an adapter's folder.") from error
    try:
        for name, limit in limits.items():
            file = _open_regular(folder, name, source)
            if file is None:
                continue
            with os.fdopen(file, "rb", buffering=0) as stream:
                size = os.fstat(file).st_size
                if size > limit:
                    raise FinLoraError(f"{source / name} has {size:,} bytes; at most {limit:,} are allowed.")
                digest.update(f"{name} {size}\n".encode())
                _copy(stream, size, digest, None if target is None else target / name, source / name)
    except OSError as error:
        raise FinLoraError(f"{source} cannot be copied: {error.strerror}.") from error
    finally:
        os.close(folder)
    return digest.hexdigest()


def _copy(stream, size: int, digest, target: Path | None, called: Path) -> None:
    left = size
    with open(os.devnull if target is None else target, "wb") as copy:
        while left:
            part = stream.read(min(CHUNK, left))
            if not part:
                raise FinLoraError(f"{called} became shorter while it was read; write it whole, then add it.")
            left -= len(part)
            digest.update(part)
            copy.write(part)


def _open_regular(folder: int, name: str, source: Path) -> int | None:
    try:
        # Without O_NONBLOCK a pipe would wait for a writer.
        file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise FinLoraError(
            f"{source / name} cannot be read ({error.strerror}); symbolic links are not followed, so copy "
            "the folder with the files that they name (cp -rL)."
        ) from error
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise FinLoraError(f"{source / name} is not a regular file.")
    return file


def flush_files(folder: Path) -> None:
    """Bring the files of a folder to the disk."""
    for path in (*folder.iterdir(), folder):
        _flush(path)


def _flush(path: Path) -> None:
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def _lock(folder: Path) -> int | None:
    """Lock a folder of `incoming` until this process ends; None if its process lives."""
    file = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        return None
    return file
