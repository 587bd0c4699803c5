"""API keys: who may ask, how often, and who may change experts.

A TOML file names them; of a key it may hold the SHA-256 instead, as `sha256sum` prints it:

    [bank_a]
    key = "a-long-random-string"
    requests_per_minute = 120
    concurrent = 8
    manages_experts = true
"""

import hashlib
import hmac
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from ....experts.errors import FinLoraError


class Client(BaseModel):
    """One who may ask."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    name: str
    key: Annotated[str, Field(min_length=16)] | None = None
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = None
    requests_per_minute: Annotated[float, Field(gt=0)] | None = None
    """None sets no limit."""
    concurrent: Annotated[int, Field(ge=1)] | None = None
    """Most requests at once; None sets no limit."""
    manages_experts: bool = False
    """Whether experts may be added and removed with this key."""

    @model_validator(mode="after")
    def _check(self) -> "Client":
        if (self.key is None) == (self.sha256 is None):
            raise ValueError("give either key or sha256")
        return self

    @property
    def digest(self) -> str:
        """SHA-256 of its key, in hexadecimal."""
        return self.sha256 or hashlib.sha256((self.key or "").encode()).hexdigest()


ANYONE = Client(name="", sha256="0" * 64, manages_experts=True)
"""Who asks where no keys are set."""


class Keys:
    """All keys of a server."""

    def __init__(self, clients: Sequence[Client] = ()):
        """Know these clients; none lets everyone ask."""
        self._clients = tuple(clients)

    @classmethod
    def read(cls, file: Path) -> "Keys":
        """Read a TOML file.

        Raises:
            FinLoraError: If it cannot be read, or a key is set wrongly.
        """
        try:
            content = tomllib.loads(file.read_text(encoding="utf-8"))
            entries = [{"name": name, **fields} for name, fields in content.items()]
            clients = TypeAdapter(list[Client]).validate_python(entries)
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, TypeError) as error:
            raise FinLoraError(f"The file of API keys {file} cannot be read: {error}.") from error
        except ValidationError as error:
            first = error.errors(include_input=False)[0]
            place = ".".join(map(str, first["loc"][1:]))
            raise FinLoraError(f"The file of API keys {file} is wrong at {place}: {first['msg']}.") from error
        if not clients:
            raise FinLoraError(f"The file of API keys {file} names no key, so no one could ask.")
        return cls(clients)

    def find(self, authorization: str | None) -> Client | None:
        """Return whose key a header `Authorization: Bearer …` holds, or None if no one's."""
        if not self._clients:
            return ANYONE
        kind, _, key = (authorization or "").partition(" ")
        if kind.lower() != "bearer":
            return None
        digest = hashlib.sha256(key.strip().encode("utf-8", "replace")).hexdigest()
        # All are compared, so that time tells nothing.
        found = [client for client in self._clients if hmac.compare_digest(client.digest, digest)]
        return found[0] if found else None
