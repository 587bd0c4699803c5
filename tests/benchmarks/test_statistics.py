"""The bootstrap against a slow loop, and its intervals against the truth in simulated data."""

import itertools

import numpy as np
import pytest
from scipy.stats import binomtest

from finlora.benchmarks.statistics import (
    CATEGORIES,
    MACRO,
    Bootstrap,
    Interval,
    cluster_counts,
    extreme_bound,
    holm,
)


def clustered_scores(generator: np.random.Generator, clusters: int, size: int, mean: float):
    """Right or wrong answers whose chance of being right is shared within a cluster; true mean is `mean`."""
    chance = generator.beta(2 * mean, 2 * (1 - mean), size=clusters)
    items = generator.random((clusters, size)) < chance[:, None]
    return 100.0 * items.reshape(1, -1), [f"company {index}" for index in np.repeat(range(clusters), size)]


def test_draws_equal_a_slow_loop_over_repeated_items():
    generator = np.random.default_rng(3)
    groups = {"a": ["x", "y", "x", "z", "z", "z"], "b": ["p", "q", "r"]}
    scores = {
        "one": {task: generator.random((1, len(items))) * 100 for task, items in groups.items()},
        "two": {task: generator.random((1, len(items))) * 100 for task, items in groups.items()},
    }
    bootstrap = Bootstrap(scores, groups, resamples=50, seed=9)
    for method in scores:
        slow = np.zeros((50, len(groups)))
        for column, (task, items) in enumerate(groups.items()):
            names = sorted(set(items))
            counts = cluster_counts(len(names), resamples=50, seed=9, task=task)
            for row in range(50):
                drawn = [
                    scores[method][task][0, index]
                    for name, count in zip(names, counts[row], strict=True)
                    for index in [i for i, item in enumerate(items) if item == name] * count
                ]
                slow[row, column] = sum(drawn) / len(drawn)
            np.testing.assert_allclose(bootstrap.draws(method, task), slow[:, column])
        np.testing.assert_allclose(bootstrap.draws(method, MACRO), slow.mean(axis=1))


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    generator = np.random.default_rng(0)
    inside, inside_without_clusters, runs = 0, 0, 150
    for run in range(runs):
        scores, groups = clustered_scores(generator, clusters=50, size=6, mean=0.7)
        interval = Bootstrap({"m": {"t": scores}}, {"t": groups}, resamples=400, seed=run).score("m", "t")
        inside += interval.low <= 70 <= interval.high
        alone = [str(index) for index in range(scores.shape[1])]
        naive = Bootstrap({"m": {"t": scores}}, {"t": alone}, resamples=400, seed=run).score("m", "t")
        inside_without_clusters += naive.low <= 70 <= naive.high
    assert 0.90 <= inside / runs <= 0.985
    assert inside_without_clusters / runs < 0.85


def test_intervals_of_a_paired_difference_cover_the_truth_and_are_narrower_than_unpaired():
    generator = np.random.default_rng(1)
    inside, runs, paired, unpaired = 0, 120, [], []
    for run in range(runs):
        better, groups = clustered_scores(generator, clusters=60, size=4, mean=0.8)
        worse = better * (generator.random(better.shape) < 0.9)
        bootstrap = Bootstrap({"b": {"t": better}, "w": {"t": worse}}, {"t": groups}, resamples=400, seed=run)
        difference = bootstrap.difference("b", "w", "t")
        inside += difference.low <= 8.0 <= difference.high
        paired.append(difference.high - difference.low)
        widths = [bootstrap.score(method, "t") for method in "bw"]
        unpaired.append(np.hypot(*[interval.high - interval.low for interval in widths]))
    assert 0.89 <= inside / runs <= 0.99
    assert np.mean(paired) < 0.7 * np.mean(unpaired)


def test_seeds_widen_the_interval_and_are_drawn_together_over_tasks():
    items = 200
    groups = {task: [str(index) for index in range(items)] for task in ("a", "b")}
    flat = {task: np.tile(np.arange(items) % 2 * 100.0, (1, 1)) for task in groups}
    weak_and_strong = {task: np.stack([np.zeros(items), np.full(items, 100.0)]) for task in groups}
    bootstrap = Bootstrap({"one": flat, "seeds": weak_and_strong}, groups, resamples=2000)
    one, seeds = bootstrap.score("one"), bootstrap.score("seeds")
    assert seeds.value == pytest.approx(one.value) == 50
    assert (seeds.low, seeds.high) == (0, 100)
    assert one.low > 40
    # Both seeds weak happens in one draw in four; were tasks to draw seeds apart, it would be one in sixteen.
    assert np.mean(bootstrap.draws("seeds") == 0) == pytest.approx(0.25, abs=0.04)


def test_the_draws_of_a_task_depend_on_no_other_task_and_no_other_method():
    generator = np.random.default_rng(5)
    groups = {task: [str(index) for index in range(30)] for task in "ab"}
    scores = {method: {task: generator.random((1, 30)) for task in groups} for method in "mn"}
    whole = Bootstrap(scores, groups, resamples=100)
    part = Bootstrap({"n": {"b": scores["n"]["b"]}}, {"b": groups["b"]}, resamples=100)
    np.testing.assert_allclose(whole.draws("n", "b"), part.draws("n", "b"))


def test_ratio_difference_and_macro_values():
    groups = {"a": ["1", "2"], "b": ["1", "2", "3", "4"]}
    scores = {
        "m": {"a": np.array([[100.0, 50.0]]), "b": np.array([[100.0, 0, 100, 0]])},
        "o": {"a": np.array([[100.0, 100.0]]), "b": np.array([[100.0, 50, 100, 50]])},
        "zero": {"a": np.zeros((1, 2)), "b": np.zeros((1, 4))},
    }
    bootstrap = Bootstrap(scores, groups, resamples=500)
    assert bootstrap.score("m").value == pytest.approx((75 + 50) / 2)
    assert bootstrap.difference("m", "o").value == pytest.approx(62.5 - 87.5)
    ratio = bootstrap.ratio("m", "o")
    assert ratio is not None
    assert ratio.value == pytest.approx(100 * 62.5 / 87.5)
    assert ratio.low <= ratio.value <= ratio.high
    assert bootstrap.ratio("m", "zero") is None


@pytest.mark.parametrize(
    ("answer", "expected"), [(0.0, Interval(0.0, 0.0, 30.85)), (100.0, Interval(100.0, 69.15, 100.0))]
)
def test_all_right_or_all_wrong_still_has_an_interval(answer: float, expected: Interval):
    groups = {"t": [str(index) for index in range(10)]}
    interval = Bootstrap({"m": {"t": np.full((1, 10), answer)}}, groups, resamples=50).score("m", "t")
    # Known value: the exact 95 % bound for 0 of 10 is 30.85 %.
    assert interval.value == expected.value
    assert interval.low == pytest.approx(expected.low, abs=0.005)
    assert interval.high == pytest.approx(expected.high, abs=0.005)


@pytest.mark.parametrize("answer", [0.0, 100.0])
@pytest.mark.parametrize("mean", [MACRO, CATEGORIES])
def test_a_mean_of_tasks_that_are_all_wrong_or_all_right_has_an_interval(answer: float, mean: str):
    groups = {task: [str(index) for index in range(25)] for task in "abcd"}
    scores = {"m": {task: np.full((2, 25), answer) for task in groups}}
    bootstrap = Bootstrap(scores, groups, resamples=50, categories=dict(zip("abcd", "xxyy", strict=True)))
    # Equal tasks are one task of 100 clusters; SciPy computes the bound of Clopper and Pearson.
    expected = binomtest(int(answer), 100).proportion_ci(0.95, method="exact")
    interval = bootstrap.score("m", mean)
    assert interval.value == answer
    assert (interval.low, interval.high) == pytest.approx((100 * expected.low, 100 * expected.high))
    assert bootstrap.score("m", "a").high - bootstrap.score("m", "a").low > interval.high - interval.low


def test_a_mean_of_tasks_that_are_all_wrong_and_others_all_right_has_an_interval():
    groups = {task: [str(index) for index in range(10)] for task in "abcd"}
    scores = {"m": {task: np.full((1, 10), 100.0 if task == "d" else 0.0) for task in groups}}
    interval = Bootstrap(scores, groups, resamples=20).score("m")
    # Three tasks of 10 are one of 30, with three quarters of the weight; the right one has a quarter.
    assert interval.high - 25 == pytest.approx(75 * binomtest(0, 30).proportion_ci(method="exact").high)
    assert 25 - interval.low == pytest.approx(25 * binomtest(0, 10).proportion_ci(method="exact").high)


def test_a_mean_of_tasks_of_which_only_one_is_all_wrong_is_resampled():
    groups = {"a": ["1", "2"], "b": ["1", "2"]}
    scores = {"m": {"a": np.zeros((1, 2)), "b": np.array([[100.0, 0.0]])}}
    assert Bootstrap(scores, groups, resamples=200).score("m") == Interval(25.0, 0.0, 50.0)


@pytest.mark.parametrize("clusters", [1, 2, 10, 300])
def test_the_bound_of_one_task_is_that_of_clopper_and_pearson(clusters: int):
    assert extreme_bound([1.0], [clusters]) == pytest.approx(
        binomtest(0, clusters).proportion_ci(0.95, method="exact").high
    )


@pytest.mark.parametrize(
    ("weights", "clusters"), [((0.5, 0.5), (4, 40)), ((0.2, 0.8), (10, 10)), ((0.5, 0.5), (1, 1000))]
)
def test_the_bound_of_unequal_tasks_is_the_largest_mean_that_data_do_not_refute(weights, clusters):
    # By brute force over pairs of true shares, one of them from a grid, the other as large as data allow.
    found = 0.0
    for share in np.linspace(0.0, 0.999, 20_000):
        left = 0.025 / (1 - share) ** clusters[0]
        if left <= 1:
            found = max(found, weights[0] * share + weights[1] * (1 - left ** (1 / clusters[1])))
    assert extreme_bound(weights, clusters) == pytest.approx(found, abs=1e-4)


def test_the_bound_of_unequal_tasks_holds_the_truth_as_often_as_it_says():
    # The chance that all answers are wrong, where the true mean lies beyond the bound, is below 2.5 %.
    weights, clusters = (0.25, 0.25, 0.5), (3, 8, 30)
    bound = extreme_bound(weights, clusters)
    for shares in itertools.product(np.linspace(0, 1, 41), repeat=3):
        if np.dot(weights, shares) > bound + 1e-9:
            assert np.prod((1 - np.array(shares)) ** np.array(clusters)) < 0.025


@pytest.mark.parametrize(
    ("scores", "groups"),
    [
        ({}, {"t": ["1"]}),
        ({"m": {"t": np.zeros((1, 2))}}, {"t": ["1"]}),
        ({"m": {"t": np.zeros((1, 1))}}, {"t": ["1"], "u": ["1"]}),
        ({"m": {"t": np.zeros((1, 0))}}, {"t": []}),
        ({"m": {"t": np.zeros((1, 1)), "u": np.zeros((2, 1))}}, {"t": ["1"], "u": ["1"]}),
    ],
)
def test_unpaired_scores_are_refused(scores, groups):
    with pytest.raises(ValueError, match=r"scores|tasks|needs|seeds"):
        Bootstrap(scores, groups)


def test_excludes_zero():
    assert Interval(1.0, 0.1, 2.0).excludes_zero
    assert Interval(-1.0, -2.0, -0.1).excludes_zero
    assert not Interval(1.0, -0.1, 2.0).excludes_zero


def test_expert_seeds_are_shared_by_all_methods_and_router_seeds_are_not():
    items = 40
    groups = {"t": [str(index) for index in range(items)]}
    # Both methods are good on the experts of seed 0 alone, whatever their routers.
    by_expert_seed = np.repeat([[100.0], [0.0]], items, axis=1)
    routed = np.repeat([[100.0], [100.0], [0.0], [0.0]], items, axis=1)
    by_router = np.repeat([[100.0], [0.0], [100.0], [0.0]], items, axis=1)
    bootstrap = Bootstrap(
        {"a": {"t": by_expert_seed}, "b": {"t": routed}, "c": {"t": by_router}},
        groups,
        resamples=4000,
        expert_seeds={"a": [0, 1], "b": [0, 0, 1, 1], "c": [0, 0, 1, 1]},
    )
    np.testing.assert_allclose(bootstrap.draws("a", "t"), bootstrap.draws("b", "t"))
    assert bootstrap.difference("a", "b", "t") == Interval(0.0, 0.0, 0.0)
    # Of two expert seeds both are the good one in a quarter of the draws.
    assert np.mean(bootstrap.draws("a", "t") == 100) == pytest.approx(0.25, abs=0.03)
    # Two routers on each of two expert seeds are four draws of a router, all good in a sixteenth.
    assert np.mean(bootstrap.draws("c", "t") == 100) == pytest.approx(1 / 16, abs=0.015)


def test_the_mean_over_categories_weighs_categories_alike():
    groups = {task: ["1", "2"] for task in ("a", "b", "c")}
    scores = {"m": {"a": np.full((1, 2), 90.0), "b": np.full((1, 2), 30.0), "c": np.full((1, 2), 10.0)}}
    bootstrap = Bootstrap(scores, groups, resamples=20, categories={"a": "x", "b": "y", "c": "y"})
    assert bootstrap.score("m", CATEGORIES).value == pytest.approx((90 + 20) / 2)
    assert bootstrap.score("m", MACRO).value == pytest.approx(130 / 3)


def test_the_way_from_base_to_oracle():
    groups = {"t": [str(index) for index in range(50)]}
    scores = {name: {"t": np.full((1, 50), value)} for name, value in (("b", 20.0), ("o", 80.0), ("m", 65.0))}
    bootstrap = Bootstrap(scores, groups, resamples=50)
    assert bootstrap.normalized("m", "b", "o", "t") == Interval(75.0, 75.0, 75.0)
    assert bootstrap.normalized("m", "o", "b", "t") is None


def test_p_values_are_small_where_the_interval_leaves_out_zero_and_uniform_where_nothing_differs():
    generator = np.random.default_rng(4)
    groups = {"t": [str(index) for index in range(120)]}
    found = []
    for run in range(200):
        one, other = (100.0 * (generator.random((1, 120)) < 0.6) for _ in "ab")
        bootstrap = Bootstrap({"a": {"t": one}, "b": {"t": other}}, groups, resamples=400, seed=run)
        found.append(bootstrap.p_value("a", "b", "t"))
        assert (found[-1] < 0.05) == bootstrap.difference("a", "b", "t").excludes_zero or 0.03 < found[
            -1
        ] < 0.07
    assert 0.01 <= np.mean(np.array(found) < 0.05) <= 0.10
    assert 0.4 <= np.mean(np.array(found) < 0.5) <= 0.6


def test_a_detectable_difference_is_found_four_times_out_of_five():
    generator = np.random.default_rng(8)
    items, runs, found, detectable = 200, 200, 0, []
    groups = {"t": [str(index) for index in range(items)]}
    for run in range(runs):
        other = 100.0 * (generator.random((1, items)) < 0.5)
        one = np.where(
            generator.random((1, items)) < 0.30, 100.0 * (generator.random((1, items)) < 0.75), other
        )
        bootstrap = Bootstrap({"a": {"t": one}, "b": {"t": other}}, groups, resamples=300, seed=run)
        detectable.append(bootstrap.detectable("a", "b", "t"))
        found += bootstrap.difference("a", "b", "t").excludes_zero
    # The true difference is 0.30 * 25 = 7.5 points.
    assert np.mean(detectable) == pytest.approx(7.5, abs=0.9)
    assert 0.70 <= found / runs <= 0.90


def test_holm_against_the_published_example():
    # Holm 1979, as worked through in statsmodels and R's p.adjust: 0.01, 0.04, 0.03, 0.005.
    adjusted = holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005})
    assert adjusted == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06, "d": 0.02})
    assert holm({"only": 0.2}) == {"only": 0.2}
