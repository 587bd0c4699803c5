"""What whoever starts a server decides about its HTTP API."""

from dataclasses import dataclass
from pathlib import Path

MEBIBYTE = 2**20


@dataclass(frozen=True, kw_only=True)
class ApiSettings:
    """Limits of the API."""

    body_limit: int = MEBIBYTE
    """Most bytes of a request."""
    upload_limit: int = 512 * MEBIBYTE
    """Most bytes of a request that brings an expert; its weights take 4/3 of their size in base64."""
    choice_limit: int = 32
    """Most answers of one request: prompts times n."""
    open_limit: int = 1024
    """Most requests that are answered or wait at once, over all keys."""
    stall_seconds: float = 300.0
    """After how long without a sign of life from the engine a request is given up."""
    schema_limit: int = 65_536
    """Most characters of a JSON schema."""
    expert_source: Path | None = None
    """Folder from which experts may be added by path; None allows uploads only."""
