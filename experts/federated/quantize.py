"""Updates as whole numbers: what can be masked, added modulo 2^32 and proved is an integer, not a float.

A lane is one value of an update in units of 2^-12. Sums of lanes wrap around modulo 2^32; they mean what
they say while banks times the largest lane stays below 2^31.
"""

import math

import numpy as np
from jaxtyping import Float32, Int32

from ..errors import FinLoraError

FRACTION_BITS = 12
SCALE = 1 << FRACTION_BITS
"""Lanes per unit: a value is rounded to the nearest multiple of 1 / SCALE."""


def squared_bound(max_norm: float) -> int:
    """Return the largest sum of squared lanes that an update may have.

    It is (max_norm * SCALE)^2 rounded down to what float32 holds, since the circuit of a proof stores it
    so.

    Args:
        max_norm: Longest update in L2, in the update's units.
    """
    exact = (max_norm * SCALE) ** 2
    rounded = np.float32(exact)
    return int(rounded if float(rounded) <= exact else np.nextafter(rounded, np.float32(0)))


def require_room(max_norm: float, banks: int) -> None:
    """Check that sums of so many updates cannot wrap around.

    Raises:
        FinLoraError: They can.
    """
    allowed = (2**31 - 1) // SCALE / banks
    if not max_norm < allowed:
        raise FinLoraError(
            f"Sums of {banks} updates of norm {max_norm:g} overflow 32 bits; choose a max_norm below "
            f"{allowed:.0f}."
        )


def quantize(vector: Float32[np.ndarray, " value"], *, max_norm: float) -> Int32[np.ndarray, " value"]:
    """Return the lanes of an update, shortened where it is longer than allowed.

    Values are rounded to the nearest lane, so each is off by at most half a lane; an update that is too
    long is scaled down and rounded towards zero, which cannot make it longer again.

    Args:
        vector: Flat update; finite.
        max_norm: Longest update in L2, in the update's units.

    Raises:
        FinLoraError: A value is not finite.
    """
    wide = vector.astype(np.float64)
    if not np.isfinite(wide).all():
        raise FinLoraError("An update with values that are not finite has no lanes; the training diverged.")
    bound = squared_bound(max_norm)
    norm = float(np.linalg.norm(wide))
    if norm <= 2 * max_norm:
        lanes = np.rint(wide * SCALE).astype(np.int32)
        if squared_norm(lanes) <= bound:
            return lanes
    lanes = np.trunc(wide * (math.sqrt(bound) / norm)).astype(np.int32)
    assert squared_norm(lanes) <= bound
    return lanes


def squared_norm(lanes: Int32[np.ndarray, " value"]) -> int:
    """Return the sum of squared lanes, exactly."""
    wide = lanes.astype(np.int64)
    return sum(int(part @ part) for part in np.array_split(wide, 1 + wide.size // 1024))


def mean_of(total: Int32[np.ndarray, " value"], count: int) -> Float32[np.ndarray, " value"]:
    """Return the mean update of a sum of lanes.

    Args:
        total: Sum over banks, not wrapped around.
        count: Number of banks in it.
    """
    return (total.astype(np.float64) / (SCALE * count)).astype(np.float32)
