"""A bank's half of the secure sum: one object for one round, used once; see `secure_sum.py` for the protocol.

It takes nothing from the server on trust: keys are verified with the bank's own directory, the threshold is
computed from it, and each step happens once, in order.
"""

import hashlib
import secrets
from collections.abc import Iterable, Mapping
from typing import Literal

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from jaxtyping import Int32

from .masks import SEED_BYTES, mask
from .secure_sum import Advertisement, SecureSumError, Session, derive, hash_of_seed, pair_seed
from .shamir import SHARE_BYTES, split
from .signing import PrivateKey, PublicKey

Step = Literal["advertise", "share", "mask", "reveal", "done"]

NONCE = bytes(12)
"""Each sealing key seals one message, so its nonce need not change."""


class SecureBank:
    """The secrets of one bank in one session, and what it says in each step."""

    def __init__(
        self, session: Session, bank: str, key: PrivateKey, directory: Mapping[str, PublicKey]
    ) -> None:
        """Draw fresh secrets from the operating system.

        Args:
            session: The sum; its banks must be those of the directory.
            bank: This bank.
            key: The bank's node key.
            directory: Public node key of every bank of the run, from the bank's own disk.
        """
        if tuple(sorted(directory)) != session.banks or bank not in directory:
            raise SecureSumError("The banks of this round are not those of the bank's own directory.")
        self.session, self.bank, self.directory = session, bank, directory
        self._cipher_key = X25519PrivateKey.generate()
        self._mask_key = X25519PrivateKey.generate()
        self._self_seed = secrets.token_bytes(SEED_BYTES)
        self._own = Advertisement.signed(
            session,
            bank,
            key,
            self._cipher_key.public_key().public_bytes_raw(),
            self._mask_key.public_key().public_bytes_raw(),
            hash_of_seed(self._self_seed),
        )
        self._roster: dict[str, Advertisement] = {}
        self._roster_hash = b""
        self._held: dict[str, bytes] = {}
        """Bank -> its two shares for this bank: of the self-seed, then of the mask key."""
        self._next: Step = "advertise"

    def advertise(self) -> bytes:
        """Return this bank's signed public keys."""
        self._enter("advertise")
        self._next = "share"
        return self._own.encode()

    def share(self, roster: Mapping[str, bytes]) -> dict[str, bytes]:
        """Return sealed shares for every other bank of the roster.

        Args:
            roster: Bank -> advertisement, of all that take part.

        Raises:
            SecureSumError: One is not signed by its bank, this bank's own is missing or changed, or there
                are fewer than the threshold.
        """
        self._enter("share")
        self._require(roster, "advertised their keys")
        if roster.get(self.bank) != self._own.encode():
            raise SecureSumError("The server passed on other keys for this bank than it had sent.")
        unknown = set(roster) - set(self.directory)
        if unknown:
            raise SecureSumError("The server named a bank that is not in this bank's directory.")
        for peer, data in roster.items():
            self._roster[peer] = Advertisement.decode(self.session, peer, data, self.directory[peer])
        # Banks that were shown different rosters cannot open each other's shares.
        rows = b"".join(peer.encode() + b"\0" + roster[peer] for peer in sorted(roster))
        self._roster_hash = hashlib.sha256(rows).digest()
        points = [self.session.point(peer) for peer in sorted(roster)]
        seeds = split(self._self_seed, points, self.session.threshold)
        keys = split(self._mask_key.private_bytes_raw(), points, self.session.threshold)
        both = {peer: seeds[p] + keys[p] for peer in roster for p in [self.session.point(peer)]}
        self._held[self.bank] = both.pop(self.bank)
        self._next = "mask"
        return {
            peer: self._box(peer, self.bank, peer).encrypt(NONCE, pair, None) for peer, pair in both.items()
        }

    def mask(
        self, lanes: Int32[np.ndarray, " lane"], inbox: Mapping[str, bytes]
    ) -> Int32[np.ndarray, " lane"]:
        """Return the masked lanes.

        Args:
            lanes: What to hide.
            inbox: Bank -> its sealed shares for this bank, of all others that shared.

        Raises:
            SecureSumError: Shares cannot be opened, or there are fewer than the threshold.
        """
        self._enter("mask")
        if len(lanes) != self.session.lanes:
            raise SecureSumError(f"The round's vectors have {self.session.lanes} lanes, not {len(lanes)}.")
        self._require({*inbox, self.bank}, "shared their secrets")
        for peer, sealed in inbox.items():
            if peer not in self._roster or peer == self.bank:
                raise SecureSumError("Shares came from a bank that takes no part.")
            try:
                opened = self._box(peer, peer, self.bank).decrypt(NONCE, sealed, None)
            except InvalidTag:
                raise SecureSumError(f"The shares of the bank {peer} cannot be opened.") from None
            if len(opened) != 2 * SHARE_BYTES:
                raise SecureSumError(f"The shares of the bank {peer} have the wrong length.")
            self._held[peer] = opened
        pair_seeds = {
            peer: pair_seed(self.session, self._mask_key, self._roster[peer].mask_key, self.bank, peer)
            for peer in inbox
        }
        self._next = "reveal"
        return mask(lanes, bank=self.bank, self_seed=self._self_seed, pair_seeds=pair_seeds)

    def reveal(self, survivors: Iterable[str]) -> dict[str, bytes]:
        """Return one share of each bank that shared: of its self-seed if it survived, else of its mask key.

        Args:
            survivors: Banks whose masked lanes the server has.

        Raises:
            SecureSumError: This bank is not among them, one of them never shared, or there are fewer than
                the threshold.
        """
        self._enter("reveal")
        alive = set(survivors)
        self._require(alive, "sent masked lanes")
        if self.bank not in alive or not alive <= set(self._held):
            raise SecureSumError("The server's list of banks that sent masked lanes cannot be true.")
        return {
            peer: pair[:SHARE_BYTES] if peer in alive else pair[SHARE_BYTES:]
            for peer, pair in self._held.items()
        }

    def _box(self, peer: str, sender: str, receiver: str) -> ChaCha20Poly1305:
        purpose = f"shares {self._roster_hash.hex()}"
        key = derive(self.session, self._cipher_key, self._roster[peer].cipher_key, purpose, sender, receiver)
        return ChaCha20Poly1305(key)

    def _require(self, banks: Iterable[str], did: str) -> None:
        count, needed = len(set(banks)), self.session.threshold
        if count < needed:
            raise SecureSumError(f"{count} banks {did}, {needed} are needed to hide one among them.")

    def _enter(self, step: Step) -> None:
        if self._next != step:
            raise SecureSumError(f"The step {step} is not due in this round: each comes once, in order.")
        # A step that fails ends the session: it cannot be tried again with another question.
        self._next = "done"
