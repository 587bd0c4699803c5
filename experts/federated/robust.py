"""Combinations of updates that a minority of hostile banks cannot move far; the server must see each update.

So none of them goes with secure aggregation. They bound what one wild update does; many small lies that
agree pass them all (Baruch et al. 2019, arXiv:1902.06156).
"""

import numpy as np
from jaxtyping import Float32

from ..errors import FinLoraError

MIN_BANKS = 3
"""With fewer no majority can outvote a bank."""


def median(rows: Float32[np.ndarray, "bank value"]) -> Float32[np.ndarray, " value"]:
    """Return the median of each value over the banks.

    Source: Yin et al. 2018, arXiv:1803.01498. Holds while less than half of the banks are hostile.

    Raises:
        FinLoraError: There are fewer than three updates.
    """
    _require_banks(rows, "median")
    return np.median(rows.astype(np.float64), axis=0).astype(np.float32)


def trimmed_mean(rows: Float32[np.ndarray, "bank value"]) -> Float32[np.ndarray, " value"]:
    """Return the mean of each value over the banks without the highest and lowest fifth, at least one each.

    Source: Yin et al. 2018, arXiv:1803.01498. Holds while no more banks are hostile than
    are trimmed on one side.

    Raises:
        FinLoraError: There are fewer than three updates.
    """
    _require_banks(rows, "trimmed_mean")
    trimmed = max(1, len(rows) // 5)
    ordered = np.sort(rows.astype(np.float64), axis=0)
    return ordered[trimmed:-trimmed].mean(axis=0).astype(np.float32)


def krum(rows: Float32[np.ndarray, "bank value"]) -> Float32[np.ndarray, " value"]:
    """Return the one update that lies nearest to its nearest neighbours.

    Source: Blanchard et al. 2017, "Machine Learning with Adversaries". With n updates it assumes f = (n -
    3) // 2 hostile ones, the most that the proof allows (n >= 2 f + 3), and sums the squared distances to
    n - f - 2 neighbours. Of equal updates the first one counts.

    Raises:
        FinLoraError: There are fewer than three updates.
    """
    _require_banks(rows, "krum")
    wide = rows.astype(np.float64)
    count = len(wide)
    neighbours = count - (count - 3) // 2 - 2
    # One row at a time: all differences at once would take bank^2 times the adapter's memory.
    distances = np.stack([np.square(wide - row).sum(axis=1) for row in wide])
    np.fill_diagonal(distances, np.inf)
    scores = np.sort(distances, axis=1)[:, :neighbours].sum(axis=1)
    return rows[int(np.argmin(scores))].copy()


def _require_banks(rows: np.ndarray, rule: str) -> None:
    if len(rows) < MIN_BANKS:
        raise FinLoraError(
            f"The combination {rule} needs at least {MIN_BANKS} updates, got {len(rows)}; wait for more "
            "banks, or combine by mean."
        )
