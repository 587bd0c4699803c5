"""Where a result came from: the source commit and the hash of the data it was made with."""

import hashlib
import json
import subprocess
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from .tasks.task import Example


@cache
def source_commit() -> str | None:
    """Return the commit of the running FinLoRA source, or None outside a clone.

    A dirty clone gets the suffix `-dirty`: its numbers cannot be reproduced from the commit alone.
    """
    folder = Path(__file__).parent

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(folder), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        # An installed copy inside somebody else's repository must not report that repository's commit.
        git("ls-files", "--error-unmatch", Path(__file__).name)
        commit = git("rev-parse", "HEAD")
        return f"{commit}-dirty" if git("status", "--porcelain", "--untracked-files=no") else commit
    except (OSError, subprocess.SubprocessError):
        return None


def examples_sha256(examples: Iterable[Example]) -> str:
    """Return the SHA-256 of context, target and group of all examples, in order."""
    digest = hashlib.sha256()
    for example in examples:
        line = json.dumps([example.context, example.target, example.group], ensure_ascii=False)
        digest.update(line.encode() + b"\n")
    return digest.hexdigest()
