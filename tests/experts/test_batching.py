"""The order of training examples."""

import random
from collections import Counter
from itertools import pairwise

import pytest

from finlora.experts.batching import SimilarLengthSampler

LENGTHS = random.Random(0).choices(range(10, 400), k=1000)


def batches_of(sampler: SimilarLengthSampler, size: int) -> list[list[int]]:
    order = list(sampler)
    return [order[i : i + size] for i in range(0, len(order), size)]


def padded_tokens(batches: list[list[int]]) -> int:
    return sum(max(LENGTHS[i] for i in batch) * len(batch) for batch in batches)


def test_an_epoch_has_every_example_once() -> None:
    assert sorted(SimilarLengthSampler(LENGTHS, 16, seed=0)) == list(range(1000))


def test_order_depends_on_seed_and_epoch_only() -> None:
    first, second = SimilarLengthSampler(LENGTHS, 16, seed=1), SimilarLengthSampler(LENGTHS, 16, seed=1)
    list(second)
    second.set_epoch(0)
    assert list(first) == list(second)
    second.set_epoch(1)
    assert list(first) != list(second)
    assert list(first) != list(SimilarLengthSampler(LENGTHS, 16, seed=2))


def test_padding_is_a_small_part_of_what_a_random_order_needs() -> None:
    wasted = padded_tokens(batches_of(SimilarLengthSampler(LENGTHS, 16, seed=0), 16)) - sum(LENGTHS)
    order = random.Random(0).sample(range(1000), 1000)
    random_wasted = padded_tokens([order[i : i + 16] for i in range(0, 1000, 16)]) - sum(LENGTHS)
    assert wasted < 0.2 * random_wasted


def test_batches_do_not_run_from_long_to_short() -> None:
    means = [
        sum(LENGTHS[i] for i in batch) / len(batch)
        for batch in batches_of(SimilarLengthSampler(LENGTHS, 16, seed=0), 16)
    ]
    rises = sum(later > earlier for earlier, later in pairwise(means))
    assert 0.3 < rises / len(means) < 0.7


@pytest.mark.parametrize("count", [1, 15, 16, 17])
def test_few_examples(count) -> None:
    assert sorted(SimilarLengthSampler(LENGTHS[:count], 16, seed=0)) == list(range(count))


def test_weights_set_how_often_an_example_is_drawn() -> None:
    weights = [3.0] * 500 + [1.0] * 500
    drawn = Counter(index < 500 for index in SimilarLengthSampler(LENGTHS, 16, seed=0, weights=weights))
    assert drawn[True] / drawn.total() == pytest.approx(0.75, abs=0.04)
