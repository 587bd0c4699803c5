"""What a bank in secret sums has on its own disk: its key, everybody's public keys, the setup of proofs.

The public keys are exchanged outside of the protocol, by people who know each other. A key that the
server passed on would let the server pose as any bank.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from ..atomic_write import write_bytes, write_text
from ..errors import FinLoraError
from .settings import BankSettings
from .signing import PrivateKey, PublicKey, load_directory, load_private_key, public_text

PEERS_FILE = "peers.json"
KEY_FILE = "node.key"


@dataclass(frozen=True)
class Identity:
    """One bank among others."""

    bank: str
    """Its name."""
    key: PrivateKey
    """Its node key."""
    directory: Mapping[str, PublicKey]
    """Every bank's public node key, its own too."""
    proofs: Path | None = None
    """Folder of the published setup of proofs."""

    @classmethod
    def of(cls, settings: BankSettings) -> "Identity":
        """Read what a bank's settings name.

        Raises:
            FinLoraError: A file is missing or of no use, or the directory has another key for this bank.
        """
        key, directory = load_private_key(Path(settings.key)), load_directory(Path(settings.peers))
        own = directory.get(settings.name)
        if own is None or own != key.public_key():
            raise FinLoraError(
                f"{settings.peers} does not hold the public half of {settings.key} under the name "
                f"{settings.name}."
            )
        return cls(settings.name, key, directory, Path(settings.proofs) if settings.proofs else None)


def make_identities(folder: Path, banks: Iterable[str]) -> Path:
    """Make a key for each bank and the file of all public keys, where there are none; returns that file.

    For one machine: real banks make their keys themselves.

    Args:
        folder: Holds a folder for each bank.
        banks: Names of the banks.
    """
    texts = {}
    for bank in banks:
        file = folder / bank / KEY_FILE
        if not file.is_file():
            file.parent.mkdir(parents=True, exist_ok=True)
            secret = ed25519.Ed25519PrivateKey.generate()
            write_bytes(file, secret.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
            file.chmod(0o600)
        texts[bank] = public_text(load_private_key(file))
    write_text(folder / PEERS_FILE, json.dumps(texts, indent=2))
    return folder / PEERS_FILE
