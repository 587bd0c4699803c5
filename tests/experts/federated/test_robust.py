"""Robust combinations beside their definitions, and what they are for."""

import itertools

import numpy as np
import pytest

from finlora.experts.errors import FinLoraError
from finlora.experts.federated.robust import krum, median, trimmed_mean

RULES = [median, trimmed_mean, krum]


def rows(banks: int, values: int = 20, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(banks, values)).astype(np.float32)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("attack", [1e6, -1e6, 3e38])
def test_one_wild_update_of_five_moves_nothing_far(rule, attack) -> None:
    honest = 1 + 0.01 * rows(5)
    poisoned = honest.copy()
    poisoned[3] = attack
    assert np.abs(rule(poisoned) - 1).max() < 0.05


def test_the_median_of_an_even_number_is_the_mean_of_the_middle_two() -> None:
    given = rows(6)
    expected = [(sorted(column)[2] + sorted(column)[3]) / 2 for column in given.T.tolist()]
    np.testing.assert_allclose(median(given), expected, rtol=1e-6)


@pytest.mark.parametrize(("banks", "trimmed"), [(3, 1), (5, 1), (9, 1), (10, 2)])
def test_the_trimmed_mean_leaves_out_a_fifth_on_each_side(banks, trimmed) -> None:
    given = rows(banks)
    expected = [np.mean(sorted(column)[trimmed : banks - trimmed]) for column in given.T.tolist()]
    np.testing.assert_allclose(trimmed_mean(given), expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("banks", [3, 4, 5, 8])
def test_krum_chooses_the_update_of_lowest_score_by_definition(banks) -> None:
    given = rows(banks, seed=banks)
    hostile = (banks - 3) // 2
    scores = []
    for i in range(banks):
        distances = sorted(float(((given[i] - given[j]) ** 2).sum()) for j in range(banks) if j != i)
        scores.append(sum(distances[: banks - hostile - 2]))
    np.testing.assert_array_equal(krum(given), given[int(np.argmin(scores))])


@pytest.mark.parametrize("rule", [median, trimmed_mean])
def test_the_order_of_banks_does_not_matter(rule) -> None:
    given = rows(4)
    results = [rule(given[list(order)]) for order in itertools.permutations(range(4))]
    for result in results[1:]:
        np.testing.assert_allclose(result, results[0], rtol=1e-6)


@pytest.mark.parametrize("rule", RULES)
def test_two_banks_cannot_outvote_each_other(rule) -> None:
    with pytest.raises(FinLoraError, match=f"{rule.__name__} needs at least 3 updates, got 2"):
        rule(rows(2))
