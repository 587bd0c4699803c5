"""What the server refused, rolled back or missed, one JSON line each; it outlives the server's process.

A cause is one sentence about kinds of faults: no value of an update, no text that a bank chose at length.
"""

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

MAX_CAUSE = 300
"""Longest cause in characters; the log must not become a channel for data."""


class AuditLog:
    """Appends to one file; each line is on disk before `write` returns."""

    def __init__(self, path: Path) -> None:
        """Open or continue a log; its folder must exist."""
        self.path = path

    def write(self, round_number: int, bank: str, cause: str) -> None:
        """Append one entry.

        Args:
            round_number: Round it happened in, counted from 1; 0 before the first.
            bank: Name of the bank it is about; empty where it is about none or not known which.
            cause: One sentence; line breaks and unprintable letters become spaces.
        """
        entry = {
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "round": round_number,
            "bank": _plain(bank),
            "cause": _plain(cause),
        }
        line = json.dumps(entry, ensure_ascii=False) + "\n"
        # A kill can leave half a line; the next entry must not become part of it.
        descriptor = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            size = os.fstat(descriptor).st_size
            if size and os.pread(descriptor, 1, size - 1) != b"\n":
                line = "\n" + line
            os.write(descriptor, line.encode())
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def entries(self) -> list[dict[str, Any]]:
        """Return all whole entries, oldest first."""
        if not self.path.is_file():
            return []
        found = []
        for line in self.path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                found.append(json.loads(line))
            except ValueError:
                continue
        return found


def _plain(text: str) -> str:
    printable = "".join(letter if letter.isprintable() else " " for letter in text)
    return " ".join(printable.split())[:MAX_CAUSE]
