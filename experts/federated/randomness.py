"""Where the noise and the choice of records come from: the operating system, with no seed in between.

PyTorch keeps 32 bits of a CPU generator's seed, and any `torch.manual_seed` before makes Opacus' noise the
same in all banks and rounds; whoever guesses a seed subtracts the noise. Here each number is made from fresh
bytes of the operating system, so there is nothing to guess, to log or to set again.
"""

import hashlib
import itertools
import math
import os
from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float32, Float64
from torch import Tensor

_UNITS = 2.0**-53
"""Distance of neighbouring values of `Randomness.uniform`."""


class Randomness:
    """Uniform and normal numbers from a source of random bytes.

    Args:
        read: Returns that many random bytes.
    """

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self._read = read

    @classmethod
    def system(cls) -> "Randomness":
        """Return what private training uses: the operating system's cryptographic generator."""
        return cls(os.urandom)

    @classmethod
    def seeded(cls, seed: bytes) -> "Randomness":
        """Return numbers that anyone who has the seed can repeat: for tests, never for real records.

        Args:
            seed: Determines all numbers; the n-th read returns SHAKE-256 of seed and n.
        """
        counter = itertools.count()
        return cls(lambda size: hashlib.shake_256(seed + next(counter).to_bytes(8, "big")).digest(size))

    def uniform(self, count: int) -> Float64[np.ndarray, " count"]:
        """Return numbers from 0 to below 1 with 53 random bits each."""
        return (np.frombuffer(self._read(8 * count), np.uint64) >> np.uint64(11)) * _UNITS

    def normal(self, shape: tuple[int, ...]) -> Float32[Tensor, "..."]:
        """Return standard normal numbers of that shape, by Box and Muller's method.

        Each is half the sum of four, which keeps the gaps between floating-point numbers from giving the
        noise away (Holohan and Braghin 2021, arXiv:2107.10138, section 5.1).
        """
        count = math.prod(shape)
        half = 2 * count
        # From above 0 to 1, whose logarithm is finite.
        radius = np.sqrt(-2 * np.log(self.uniform(half) + _UNITS))
        angle = 2 * math.pi * self.uniform(half)
        four = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)]).reshape(4, count)
        return torch.from_numpy((four.sum(axis=0) / 2).astype(np.float32)).reshape(shape)


def draw_batch(randomness: Randomness, count: int, rate: float) -> list[int]:
    """Return the records of one step: each of `count` with probability `rate`, on its own (Poisson sampling).

    The batch may be empty. Accountants assume this sampling, and that nobody learns who was drawn.
    """
    return np.flatnonzero(randomness.uniform(count) < rate).tolist()
