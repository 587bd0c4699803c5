"""Which stored files running requests still need, known to every process that has the registry open.

One byte of one file stands for each stored folder; who needs the folder has a shared lock on its byte,
and who deletes it must get the only one. The kernel drops the locks of a process that dies, so nothing stays
locked.
"""

import fcntl
import os
import struct
import threading
from collections import Counter
from pathlib import Path

FLOCK = "hhqqi4x"
"""struct flock of Linux on 64 bits: type, whence, start, length, process (0 for these locks)."""


class VersionLeases:
    """Counted leases of one opened registry; safe in any thread.

    The locks belong to the open file (`F_OFD_SETLK`), not to the process, as POSIX's own would: two
    registries opened in one process see each other, and closing one does not drop the locks of the other.
    """

    def __init__(self, file: Path):
        """Open the file, made if missing; it stays empty, since locks may lie behind its end."""
        self._file = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._counts: Counter[int] = Counter()
        self._lock = threading.Lock()

    def take(self, number: int) -> bool:
        """Keep a stored folder; it may be kept any number of times. False if it is being deleted."""
        with self._lock:
            if number not in self._counts and not self._set(number, fcntl.F_RDLCK):
                return False
            self._counts[number] += 1
            return True

    def drop(self, number: int) -> None:
        """Undo one `take`."""
        with self._lock:
            self._counts[number] -= 1
            if not self._counts[number]:
                del self._counts[number]
                self._set(number, fcntl.F_UNLCK)

    def take_alone(self, number: int) -> bool:
        """Get a stored folder for its deletion; False if anybody, here or elsewhere, keeps it."""
        with self._lock:
            return number not in self._counts and self._set(number, fcntl.F_WRLCK)

    def drop_alone(self, number: int) -> None:
        """Undo `take_alone`."""
        with self._lock:
            self._set(number, fcntl.F_UNLCK)

    def close(self) -> None:
        """Drop everything."""
        os.close(self._file)

    def _set(self, number: int, kind: int) -> bool:
        request = struct.pack(FLOCK, kind, os.SEEK_SET, number, 1, 0)
        try:
            fcntl.fcntl(self._file, fcntl.F_OFD_SETLK, request)  # pyright: ignore[reportAttributeAccessIssue]
        except BlockingIOError:
            return False
        return True
