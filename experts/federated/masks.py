"""Masks: lanes that look random to whoever lacks their seed, and that cancel in the sum over all banks.

Flower 1.41 folds a 256-bit secret to 32 bits and seeds a Mersenne twister with it, so its masks can be
found by trying; these come from SHAKE-256 over the whole secret.
"""

import hashlib
from collections.abc import Mapping

import numpy as np
from jaxtyping import Int32

SEED_BYTES = 32


def expand(seed: bytes, lanes: int) -> Int32[np.ndarray, " lane"]:
    """Return lanes that are uniform over all 32-bit numbers to whoever does not know the seed.

    Args:
        seed: 32 secret bytes, used for one mask only.
        lanes: Number of lanes.
    """
    assert len(seed) == SEED_BYTES, len(seed)
    stream = hashlib.shake_256(b"finlora mask 1" + seed).digest(4 * lanes)
    return np.frombuffer(stream, "<i4").astype(np.int32)


def add(
    first: Int32[np.ndarray, " lane"], second: Int32[np.ndarray, " lane"], *, sign: int = 1
) -> Int32[np.ndarray, " lane"]:
    """Return first plus (or, with sign -1, minus) second, modulo 2^32."""
    a, b = first.view(np.uint32), second.view(np.uint32)
    return (a + b if sign > 0 else a - b).view(np.int32)


def sign_between(bank: str, peer: str) -> int:
    """Return with which sign a bank adds the mask it shares with a peer; the peer adds it with the other."""
    return 1 if bank < peer else -1


def mask(
    lanes: Int32[np.ndarray, " lane"], *, bank: str, self_seed: bytes, pair_seeds: Mapping[str, bytes]
) -> Int32[np.ndarray, " lane"]:
    """Return lanes under the bank's own mask and one mask for each peer.

    Args:
        lanes: What to hide.
        bank: Name of the bank.
        self_seed: Seed that only this bank knows.
        pair_seeds: Peer -> seed that only the two know.
    """
    masked = add(lanes, expand(self_seed, len(lanes)))
    for peer, seed in pair_seeds.items():
        masked = add(masked, expand(seed, len(lanes)), sign=sign_between(bank, peer))
    return masked
