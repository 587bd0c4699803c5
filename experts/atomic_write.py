"""Files that are either complete or absent, whatever kills the process while they are written."""

import json
import os
from pathlib import Path
from typing import Any


def write_text(path: Path, text: str) -> None:
    """Replace a file by text in one step.

    Args:
        path: File to write; its folder must exist.
        text: Whole new content, stored as UTF-8.
    """
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, content: bytes) -> None:
    """Replace a file in one step.

    Args:
        path: File to write; its folder must exist.
        content: Whole new content.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            # Without this a power cut can leave the new name on an empty file.
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, content: Any) -> None:
    """Replace a file by indented JSON in one step.

    Args:
        path: File to write; its folder must exist.
        content: Anything `json` can write.
    """
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
