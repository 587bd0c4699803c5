"""Mantel's test against every relabelling written out, and against what chance must give."""

from itertools import permutations

import numpy as np
import pytest
from scipy.stats import spearmanr

from finlora.benchmarks.why.permutation import mantel_test


def random_pair(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A symmetric matrix and one that is not."""
    generator = np.random.default_rng(seed)
    similarity = generator.normal(size=(count, count))
    return similarity + similarity.T, generator.normal(size=(count, count))


def enumerated(
    similarity: np.ndarray, transfer: np.ndarray, pairs: list[tuple[int, int]]
) -> tuple[float, float]:
    """Correlation and p-value, one relabelling after the other."""
    values = [transfer[pair] for pair in pairs]
    found = spearmanr([similarity[pair] for pair in pairs], values).statistic
    others = [
        spearmanr([similarity[order[i], order[j]] for i, j in pairs], values).statistic
        for order in permutations(range(len(similarity)))
    ]
    return found, float(np.mean([abs(one) >= abs(found) - 1e-12 for one in others]))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_unordered_pairs_against_enumeration(seed: int):
    similarity, transfer = random_pair(5, seed)
    test = mantel_test(similarity, transfer)
    pairs = [(i, j) for i in range(5) for j in range(i + 1, 5)]
    correlation, p_value = enumerated(similarity, (transfer + transfer.T) / 2, pairs)
    assert (test.correlation, test.p_value) == pytest.approx((correlation, p_value))
    assert (test.pairs, test.experts, test.permutations, test.exact) == (10, 5, 120, True)


def test_ordered_pairs_with_undefined_ones_against_enumeration():
    similarity, transfer = random_pair(4, 3)
    transfer[:, 1] = np.nan
    test = mantel_test(similarity, transfer, ordered=True)
    pairs = [(i, j) for i in range(4) for j in range(4) if i != j and j != 1]
    assert (test.correlation, test.p_value) == pytest.approx(enumerated(similarity, transfer, pairs))
    assert test.pairs == 9


def test_a_perfect_match_is_as_rare_as_its_relabellings():
    similarity, _ = random_pair(6, 4)
    assert mantel_test(similarity, -similarity).correlation == pytest.approx(-1)
    assert mantel_test(similarity, -similarity).p_value == pytest.approx(1 / 720)


def test_many_experts_are_drawn_and_the_seed_decides():
    similarity, transfer = random_pair(9, 5)
    one, again, other = (mantel_test(similarity, transfer, draws=999, seed=seed) for seed in (0, 0, 1))
    assert one == again != other
    assert not one.exact
    assert one.permutations == 1000
    assert abs(one.p_value - other.p_value) < 0.1
    assert mantel_test(similarity, similarity, draws=999).p_value == pytest.approx(1 / 1000)


def test_eight_experts_are_all_tried():
    similarity, transfer = random_pair(8, 6)
    test = mantel_test(similarity, transfer)
    assert test.exact
    assert test.permutations == 40_320


def test_chance_is_called_significant_as_seldom_as_it_should_be():
    p_values = np.array([mantel_test(*random_pair(5, 100 + seed)).p_value for seed in range(300)])
    assert 0.04 < (p_values <= 0.1).mean() < 0.16
    assert 0.42 < (p_values <= 0.5).mean() < 0.58


def test_a_constant_side_shows_nothing():
    similarity, transfer = random_pair(4, 7)
    few = np.where(np.arange(4) < 2, transfer, np.nan)
    for pair in ((similarity, np.zeros((4, 4))), (np.ones((4, 4)), transfer), (similarity, few)):
        test = mantel_test(*pair)
        assert np.isnan(test.correlation)
        assert test.p_value == 1.0


def test_similarity_must_be_a_similarity():
    similarity, transfer = random_pair(4, 8)
    with pytest.raises(ValueError, match="symmetric"):
        mantel_test(transfer, similarity)
    similarity[0, 1] = similarity[1, 0] = np.nan
    with pytest.raises(ValueError, match="complete"):
        mantel_test(similarity, transfer)
