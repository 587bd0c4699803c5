"""Signatures with a bank's node key, over statements that cannot be read as another statement.

Flower's SuperNodes have elliptic-curve keys (NIST curves); Ed25519 keys do as well. The public keys of a
run's banks stand in a file that each party got outside of this protocol: a key that the server passed on
would prove nothing.
"""

import json
from collections.abc import Mapping
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from ..errors import FinLoraError

PrivateKey = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
PublicKey = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey


def statement(kind: str, *parts: str | int | bytes) -> bytes:
    """Return the bytes of a statement: its kind and parts, each with its length before it.

    Without the lengths ("ab", "c") and ("a", "bc") would be the same bytes, and one signature would do
    for both.
    """
    encoded = [part if isinstance(part, bytes) else str(part).encode() for part in ("finlora", kind, *parts)]
    return b"".join(len(part).to_bytes(4, "big") + part for part in encoded)


def sign(key: PrivateKey, message: bytes) -> bytes:
    """Return the signature of a statement."""
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return key.sign(message)
    return key.sign(message, ec.ECDSA(hashes.SHA256()))


def is_signed(key: PublicKey, signature: bytes, message: bytes) -> bool:
    """Whether the signature is the key's over exactly this statement."""
    try:
        if isinstance(key, ed25519.Ed25519PublicKey):
            key.verify(signature, message)
        else:
            key.verify(signature, message, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        return False
    return True


def load_private_key(path: Path) -> PrivateKey:
    """Read a private key in PEM or OpenSSH format, without a password.

    Raises:
        FinLoraError: The file is missing or holds no elliptic-curve or Ed25519 key.
    """
    try:
        data = path.read_bytes()
        if data.lstrip().startswith(b"-----BEGIN OPENSSH"):
            key = serialization.load_ssh_private_key(data, None)
        else:
            key = serialization.load_pem_private_key(data, None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise FinLoraError(f"{path} is no private key without password in PEM or OpenSSH format.") from error
    if not isinstance(key, PrivateKey):
        raise FinLoraError(
            f"{path} holds another kind of key than elliptic-curve or Ed25519; make one of these."
        )
    return key


def load_public_key(text: str) -> PublicKey:
    """Read a public key in PEM or OpenSSH format.

    Raises:
        FinLoraError: The text is none, or of another kind than elliptic-curve or Ed25519.
    """
    try:
        data = text.encode()
        if data.lstrip().startswith(b"-----BEGIN"):
            key = serialization.load_pem_public_key(data)
        else:
            key = serialization.load_ssh_public_key(data)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise FinLoraError("A bank's public key is neither in PEM nor in OpenSSH format.") from error
    if not isinstance(key, PublicKey):
        raise FinLoraError("A bank's public key is of another kind than elliptic-curve or Ed25519.")
    return key


def public_text(key: PrivateKey) -> str:
    """Return the public half of a key as `load_public_key` reads it."""
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_key().public_bytes(serialization.Encoding.PEM, form).decode()


def load_directory(path: Path) -> dict[str, PublicKey]:
    """Read the public keys of all banks of a run: a JSON object of name -> key.

    Raises:
        FinLoraError: The file is missing, is no such object, or two banks have the same key.
    """
    try:
        texts = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FinLoraError(f"{path} is no JSON file with the public key of each bank.") from error
    if not isinstance(texts, Mapping) or not all(isinstance(text, str) for text in texts.values()):
        raise FinLoraError(f"{path} is no JSON object of names and public keys.")
    keys = {str(name): load_public_key(text) for name, text in texts.items()}
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    distinct = {key.public_bytes(serialization.Encoding.DER, form) for key in keys.values()}
    if len(distinct) < len(keys):
        raise FinLoraError(f"Two banks in {path} have the same key, so one could speak for the other.")
    return keys
