"""The bootstrap against a slow loop, and its intervals against the truth in simulated data."""

import numpy as np
import pytest

from finlora.benchmarks.statistics import MACRO, Bootstrap, Interval, cluster_counts


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
