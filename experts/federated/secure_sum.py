"""Secure aggregation: the server learns the sum of the banks' lanes and nothing else about any of them.

The protocol of Bonawitz et al. 2017 (ePrint 2017/281, "Practical secure aggregation"), with all banks as
neighbours of each other, in four steps. `SecureBank` (secure_bank.py) and `SecureServer`
(secure_server.py) are its two halves, plain objects that know no network:

1. advertise: each bank makes two key pairs and a self-seed, and sends the public keys and the seed's
   hash, signed with its node key. 2. share: each bank splits its private mask key and its self-seed among
   all banks (Shamir), sealed for each of them. 3. mask: each bank sends its lanes plus a mask of its own
   and one mask for each peer, which the peer subtracts. 4. reveal: told who sent masked lanes, each bank
   reveals of each such bank its share of the self-seed, and of each bank that dropped out its share of
   the mask key; of no bank both. So the server can remove all masks of the sum.

Against a server that lies about who dropped out, `Session.threshold` is more than half of *all* banks: to
open one bank's lanes it would need that many shares of each kind, and each bank reveals one kind once a
round. With d banks on the server's side that holds while 2 * threshold > banks + d.
"""

import hashlib
from dataclasses import dataclass

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from ..errors import FinLoraError
from .signing import PrivateKey, PublicKey, is_signed, sign, statement

KEY_BYTES = 32


class SecureSumError(FinLoraError):
    """The protocol cannot go on. The message names banks and steps, never a key or a lane."""


@dataclass(frozen=True)
class Session:
    """One sum: what all parties know of it before it begins."""

    run: str
    """Name of the run."""
    round_number: int
    """Round of the run; a bank reveals once in it."""
    banks: tuple[str, ...]
    """All banks of the run, sorted, as each party's own directory lists them."""
    lanes: int
    """Length of the vectors."""
    min_banks: int = 2
    """Banks that a sum must be over."""

    def __post_init__(self) -> None:
        """Reject a session in which a sum would hide nobody."""
        if len(self.banks) < 2 or list(self.banks) != sorted(set(self.banks)):
            raise FinLoraError("A secure sum needs at least 2 banks, each once, sorted by name.")
        if self.threshold > len(self.banks):
            raise FinLoraError(f"{self.min_banks} banks are needed, but the run has {len(self.banks)}.")

    @property
    def threshold(self) -> int:
        """Banks that must go all the way: more than half of all, at least `min_banks`."""
        return max(2, self.min_banks, len(self.banks) // 2 + 1)

    def point(self, bank: str) -> int:
        """Return where the bank's shares lie on the polynomials."""
        return 1 + self.banks.index(bank)

    def statement(self, kind: str, *parts: str | int | bytes) -> bytes:
        """Return a statement that holds in this session alone."""
        return statement(kind, self.run, self.round_number, self.lanes, self.threshold, *self.banks, *parts)


@dataclass(frozen=True)
class Advertisement:
    """What a bank publishes in the first step."""

    cipher_key: bytes
    """Public X25519 key by which others seal shares for it."""
    mask_key: bytes
    """Public X25519 key from which masks are agreed."""
    seed_hash: bytes
    """SHA-256 of the self-seed, so that nobody can pass off another one."""
    signature: bytes
    """Of the three by the bank's node key, for this session."""

    @classmethod
    def signed(
        cls,
        session: Session,
        bank: str,
        key: PrivateKey,
        cipher_key: bytes,
        mask_key: bytes,
        seed_hash: bytes,
    ) -> "Advertisement":
        """Return the advertisement of a bank."""
        message = session.statement("advertise", bank, cipher_key, mask_key, seed_hash)
        return cls(cipher_key, mask_key, seed_hash, sign(key, message))

    def encode(self) -> bytes:
        """Return what `decode` reads back."""
        return self.cipher_key + self.mask_key + self.seed_hash + self.signature

    @classmethod
    def decode(cls, session: Session, bank: str, data: bytes, key: PublicKey) -> "Advertisement":
        """Read and verify what is said to be a bank's advertisement.

        Raises:
            SecureSumError: It is not signed by that bank for this session.
        """
        cuts = (0, KEY_BYTES, 2 * KEY_BYTES, 3 * KEY_BYTES)
        cipher_key, mask_key, seed_hash = (data[cuts[i] : cuts[i + 1]] for i in range(3))
        found = cls(cipher_key, mask_key, seed_hash, data[cuts[3] :])
        message = session.statement("advertise", bank, cipher_key, mask_key, seed_hash)
        if len(seed_hash) != KEY_BYTES or not is_signed(key, found.signature, message):
            raise SecureSumError(f"The keys of the bank {bank} are not signed by it for this round.")
        return found


def hash_of_seed(seed: bytes) -> bytes:
    """Return the hash that an advertisement holds of a self-seed."""
    return hashlib.sha256(b"finlora self-seed" + seed).digest()


def pair_seed(session: Session, private: X25519PrivateKey, peer_public: bytes, bank: str, peer: str) -> bytes:
    """Return the seed of the mask between two banks; both get the same.

    Raises:
        SecureSumError: The peer's key is a point with which every agreement is the same.
    """
    return derive(session, private, peer_public, "mask", *sorted((bank, peer)))


def derive(
    session: Session, private: X25519PrivateKey, peer_public: bytes, purpose: str, *names: str
) -> bytes:
    """Return 32 bytes that only the owners of two keys can derive, for one purpose in one session.

    Raises:
        SecureSumError: The peer's key is a point with which every agreement is the same.
    """
    try:
        secret = private.exchange(X25519PublicKey.from_public_bytes(peer_public))
    except ValueError:
        raise SecureSumError("A bank's public key is no usable X25519 key.") from None
    info = session.statement(purpose, *names)
    return HKDF(algorithm=hashes.SHA256(), length=KEY_BYTES, salt=None, info=info).derive(secret)
