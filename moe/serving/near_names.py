"""What a model may be called, and which names are near one that nobody knows."""

import re
from collections.abc import Iterable
from difflib import SequenceMatcher

from ...experts.errors import FinLoraError
from .requests import BASE_MODEL

MAX_NAME_LENGTH = 100
ALLOWED = re.compile(r"(?!\.)[A-Za-z0-9._-]{1,100}", re.ASCII)
LEAST_LIKENESS = 0.6
"""As difflib's `get_close_matches`."""


def check_name(name: str) -> None:
    """Check that an expert or a mixture may have this name.

    Raises:
        FinLoraError: If it may not.
    """
    if ALLOWED.fullmatch(name) is None:
        raise FinLoraError(
            f"{shorten(name)} cannot be the name of a model; use 1 to {MAX_NAME_LENGTH} letters, digits, "
            "dots, hyphens and underscores, and no dot at the beginning."
        )
    if name == BASE_MODEL:
        raise FinLoraError(f"The name {BASE_MODEL} is the base's own; choose another one.")


def shorten(text: str) -> str:
    """Return text in quotes for a message: one line, without control characters, at most 60 characters."""
    quoted = ascii(text)
    return quoted if len(quoted) <= 60 else f"{quoted[:56]}…{quoted[-1]}"


def near_names(name: str, names: Iterable[str], *, limit: int = 3) -> list[str]:
    """Return names that somebody who wrote `name` may have meant, nearest first.

    Pairs of letters in common, which cost little, choose 20 candidates; only those are compared letter by
    letter. So a flood of wrong names cannot keep a server with thousands of experts busy.
    """
    if ALLOWED.fullmatch(name) is None:
        return []
    wanted = _pairs(name)
    likely = sorted(names, key=lambda other: -_likeness(wanted, _pairs(other)))[:20]
    compared = {other: SequenceMatcher(None, name.lower(), other.lower()).ratio() for other in likely}
    near = [other for other, ratio in compared.items() if ratio >= LEAST_LIKENESS]
    return sorted(near, key=lambda other: -compared[other])[:limit]


def _pairs(name: str) -> set[str]:
    padded = f" {name.lower()} "
    return {padded[i : i + 2] for i in range(len(padded) - 1)}


def _likeness(one: set[str], other: set[str]) -> float:
    return len(one & other) / (len(one) + len(other))
