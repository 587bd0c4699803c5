"""The order in which training sees its examples: batches of similar length, in random order.

The order of an epoch depends on seed and epoch alone, not on the state of any random generator, so a resumed
run sees what an unbroken one sees. (The length-grouped sampler of transformers 5.23 draws from the global
generator, and runs through the batches from long to short, which sorts a mixture of tasks by task.)
"""

from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import Sampler

POOL_BATCHES = 8
"""Batches whose examples are sorted by length together: more gives less padding, fewer more random
batches."""


class SimilarLengthSampler(Sampler[int]):
    """Indices of examples, epoch by epoch, such that consecutive runs of `batch_size` have similar lengths.

    Args:
        lengths: Tokens of each example.
        batch_size: Examples of one optimizer step on one device, or of one forward pass.
        seed: Determines, with the epoch, the order.
        weights: Relative chance of each example to be drawn, with replacement; by default an epoch has every
            example once.
    """

    def __init__(
        self, lengths: Sequence[int], batch_size: int, *, seed: int, weights: Sequence[float] | None = None
    ) -> None:
        self.lengths = lengths
        self.batch_size = batch_size
        self.seed = seed
        self.weights = None if weights is None else torch.tensor(weights, dtype=torch.float64)
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.lengths)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration runs through; the Trainer calls it."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        indices = self._draw(generator)
        pool = self.batch_size * POOL_BATCHES
        batches = []
        for start in range(0, len(indices), pool):
            similar = sorted(indices[start : start + pool], key=self.lengths.__getitem__)
            batches += [similar[i : i + self.batch_size] for i in range(0, len(similar), self.batch_size)]
        # An incomplete batch must stay last, or every batch after it would straddle two lengths.
        incomplete = [batches.pop()] if len(batches[-1]) < self.batch_size else []
        order = torch.randperm(len(batches), generator=generator).tolist()
        return iter([index for batch in [*(batches[i] for i in order), *incomplete] for index in batch])

    def _draw(self, generator: torch.Generator) -> list[int]:
        if self.weights is None:
            return torch.randperm(len(self.lengths), generator=generator).tolist()
        return torch.multinomial(
            self.weights, len(self.lengths), replacement=True, generator=generator
        ).tolist()
