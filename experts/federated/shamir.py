"""Shamir's secret sharing: any `threshold` shares give the secret, fewer give nothing about it.

The shares are points of a random polynomial over the numbers modulo a prime just above 2^256, whose value
at 0 is the secret (Shamir 1979). Nothing here shows that a share is genuine; whoever combines checks the
result against something public.
"""

import secrets
from collections.abc import Mapping, Sequence

PRIME = 2**256 + 297
"""The smallest prime above 2^256, so that every secret of 32 bytes is below it."""

SECRET_BYTES = 32
SHARE_BYTES = 33


def split(secret: bytes, points: Sequence[int], threshold: int) -> dict[int, bytes]:
    """Return one share for each point.

    Args:
        secret: 32 bytes.
        points: Where the polynomial is evaluated: distinct, above 0, one for each holder.
        threshold: Number of shares that give the secret.
    """
    assert len(secret) == SECRET_BYTES
    assert len(set(points)) == len(points) >= threshold >= 1 <= min(points)
    coefficients = [int.from_bytes(secret, "big"), *(secrets.randbelow(PRIME) for _ in range(threshold - 1))]
    return {point: _evaluate(coefficients, point).to_bytes(SHARE_BYTES, "big") for point in points}


def _evaluate(coefficients: Sequence[int], point: int) -> int:
    value = 0
    for coefficient in reversed(coefficients):
        value = (value * point + coefficient) % PRIME
    return value


def combine(shares: Mapping[int, bytes]) -> bytes:
    """Return the secret of shares; of forged or too few ones something else.

    Args:
        shares: Point -> share; at least as many as the threshold when they were made.

    Raises:
        ValueError: The shares are of no secret of 32 bytes, so one of them is wrong.
    """
    secret = 0
    for point, share in shares.items():
        weight = 1
        for other in shares:
            if other != point:
                weight = weight * other * pow(other - point, -1, PRIME) % PRIME
        secret = (secret + int.from_bytes(share, "big") * weight) % PRIME
    if secret >= 2 ** (8 * SECRET_BYTES):
        raise ValueError("These shares are of no secret of 32 bytes.")
    return secret.to_bytes(SECRET_BYTES, "big")
