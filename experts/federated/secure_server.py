"""The server's half of the secure sum: one object for one round; see `secure_sum.py` for the protocol.

It relays what banks say to each other, drops those that break the protocol (`refused` says why), and in
the end removes the masks of the sum.
"""

import itertools
from collections.abc import Callable, Mapping

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from jaxtyping import Int32

from .masks import add, expand, sign_between
from .secure_sum import Advertisement, SecureSumError, Session, hash_of_seed, pair_seed
from .shamir import SHARE_BYTES, combine
from .signing import PublicKey

MAX_TRIES = 500
"""Sets of shares that are tried where some of them are forged."""


class SecureServer:
    """What the server holds of one session."""

    def __init__(self, session: Session, directory: Mapping[str, PublicKey]) -> None:
        """Begin a session.

        Args:
            session: The sum.
            directory: Public node key of every bank of the run.
        """
        self.session, self.directory = session, directory
        self.refused: dict[str, str] = {}
        """Bank -> why it no longer takes part, in one sentence."""
        self._roster: dict[str, Advertisement] = {}
        self._shared: list[str] = []
        self._masked: dict[str, Int32[np.ndarray, " lane"]] = {}

    def roster(self, advertised: Mapping[str, bytes]) -> dict[str, bytes]:
        """Return what to send to every bank in the second step: all advertisements that are genuine.

        Raises:
            SecureSumError: There are fewer than the threshold.
        """
        for bank in sorted(advertised):
            try:
                key = self.directory[bank]
                self._roster[bank] = Advertisement.decode(self.session, bank, advertised[bank], key)
            except KeyError:
                self.refused[bank] = "The bank is not in the server's directory."
            except SecureSumError as error:
                self.refused[bank] = str(error)
        self._require(len(self._roster), "advertised their keys")
        return {bank: advertised[bank] for bank in self._roster}

    def route(self, sealed: Mapping[str, Mapping[str, bytes]]) -> dict[str, dict[str, bytes]]:
        """Return the inbox of every bank that shared its secrets with all others.

        Args:
            sealed: Bank -> receiver -> sealed shares.

        Raises:
            SecureSumError: There are fewer than the threshold.
        """
        for bank in sorted(sealed):
            if set(sealed[bank]) == set(self._roster) - {bank} and bank in self._roster:
                self._shared.append(bank)
            else:
                self.refused[bank] = "The bank did not share its secrets with every other bank."
        self._require(len(self._shared), "shared their secrets")
        return {
            bank: {peer: sealed[peer][bank] for peer in self._shared if peer != bank} for bank in self._shared
        }

    def survivors(self, masked: Mapping[str, np.ndarray]) -> list[str]:
        """Take the masked lanes of the third step, and return whom to name in the fourth.

        Args:
            masked: Bank -> what it sent, not checked yet.

        Raises:
            SecureSumError: There are fewer than the threshold.
        """
        for bank in sorted(masked):
            lanes = masked[bank]
            if bank not in self._shared:
                self.refused[bank] = "The bank sent masked lanes without having shared its secrets."
            elif lanes.dtype != np.int32 or lanes.shape != (self.session.lanes,):
                self.refused[bank] = f"The bank did not send {self.session.lanes} masked lanes of 32 bits."
            else:
                self._masked[bank] = lanes
        self._require(len(self._masked), "sent masked lanes")
        return list(self._masked)

    def total(self, revealed: Mapping[str, Mapping[str, bytes]]) -> Int32[np.ndarray, " lane"]:
        """Return the sum of the survivors' lanes.

        Args:
            revealed: Bank -> bank that shared -> share of its self-seed or of its mask key.

        Raises:
            SecureSumError: Fewer than the threshold revealed genuine shares.
        """
        self._require(len(revealed), "revealed their shares")
        total = np.zeros(self.session.lanes, np.int32)
        for lanes in self._masked.values():
            total = add(total, lanes)
        for bank in self._shared:
            shares = {
                self.session.point(holder): held[bank]
                for holder, held in revealed.items()
                if holder in self._shared and len(held.get(bank, b"")) == SHARE_BYTES
            }
            if bank in self._masked:
                seed = self._recover(bank, shares, self._is_self_seed)
                total = add(total, expand(seed, self.session.lanes), sign=-1)
            else:
                key = X25519PrivateKey.from_private_bytes(self._recover(bank, shares, self._is_mask_key))
                total = self._without_pairs(total, bank, key)
        return total

    def _without_pairs(
        self, total: Int32[np.ndarray, " lane"], dropped: str, key: X25519PrivateKey
    ) -> Int32[np.ndarray, " lane"]:
        """The sum without the masks that survivors share with a bank that never subtracted them."""
        for bank in self._masked:
            seed = pair_seed(self.session, key, self._roster[bank].mask_key, dropped, bank)
            total = add(total, expand(seed, self.session.lanes), sign=-sign_between(bank, dropped))
        return total

    def _recover(
        self, bank: str, shares: Mapping[int, bytes], genuine: Callable[[str, bytes], bool]
    ) -> bytes:
        """The secret of a bank: what some `threshold` shares combine to and its advertisement confirms."""
        choices = itertools.combinations(sorted(shares), self.session.threshold)
        for points in itertools.islice(choices, MAX_TRIES):
            try:
                secret = combine({point: shares[point] for point in points})
            except ValueError:
                continue
            if genuine(bank, secret):
                return secret
        raise SecureSumError(
            f"The masks of the bank {bank} cannot be removed: {self.session.threshold} genuine shares are "
            "needed."
        )

    def _is_self_seed(self, bank: str, secret: bytes) -> bool:
        return hash_of_seed(secret) == self._roster[bank].seed_hash

    def _is_mask_key(self, bank: str, secret: bytes) -> bool:
        public = X25519PrivateKey.from_private_bytes(secret).public_key()
        return public.public_bytes_raw() == self._roster[bank].mask_key

    def _require(self, count: int, did: str) -> None:
        if count < self.session.threshold:
            raise SecureSumError(f"{count} banks {did}, {self.session.threshold} are needed.")
