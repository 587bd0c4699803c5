"""Lanes: rounding, shortening, and sums that cannot wrap around."""

import math

import numpy as np
import pytest

from finlora.experts.errors import FinLoraError
from finlora.experts.federated.quantize import (
    SCALE,
    mean_of,
    quantize,
    require_room,
    squared_bound,
    squared_norm,
)


def update(norm: float, size: int = 500, seed: int = 0) -> np.ndarray:
    values = np.random.default_rng(seed).normal(size=size)
    return (values * norm / np.linalg.norm(values)).astype(np.float32)


def test_a_short_update_is_rounded_to_half_a_lane() -> None:
    vector = update(2.9)
    lanes = quantize(vector, max_norm=3.0)
    assert np.abs(lanes / SCALE - vector).max() <= 0.5 / SCALE


@pytest.mark.parametrize("norm", [3.0, 3.0001, 7.0, 1e6, 3e38])
def test_no_update_comes_out_longer_than_allowed(norm) -> None:
    vector = update(norm) if norm < 1e38 else np.full(3, 3e38, np.float32)
    lanes = quantize(vector, max_norm=3.0)
    assert 0.98 * squared_bound(3.0) < squared_norm(lanes) <= squared_bound(3.0)
    cosine = (
        lanes @ vector.astype(np.float64) / np.linalg.norm(lanes) / np.linalg.norm(vector.astype(np.float64))
    )
    assert cosine > 0.999


def test_an_update_that_rounding_makes_too_long_is_shortened() -> None:
    # Each value lies 0.6 lanes above a lane, so rounding to the nearest adds length.
    vector = np.full(400, 100.6 / SCALE, np.float32)
    max_norm = float(np.linalg.norm(vector.astype(np.float64)))
    assert squared_norm(np.rint(vector * SCALE).astype(np.int32)) > squared_bound(max_norm)
    assert squared_norm(quantize(vector, max_norm=max_norm)) <= squared_bound(max_norm)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_values_that_are_not_finite_have_no_lanes(value) -> None:
    with pytest.raises(FinLoraError, match="not finite"):
        quantize(np.array([0.0, value], np.float32), max_norm=3.0)


def test_the_squared_norm_is_exact_where_int64_blocks_meet() -> None:
    lanes = np.random.default_rng(1).integers(-(2**26), 2**26, 5000).astype(np.int32)
    assert squared_norm(lanes) == sum(int(lane) ** 2 for lane in lanes)


@pytest.mark.parametrize("max_norm", [0.1, 1.3, 3.0, 10.0, 1234.5])
def test_the_bound_is_the_whole_number_of_float32_below_the_exact_one(max_norm) -> None:
    bound, exact = squared_bound(max_norm), (max_norm * SCALE) ** 2
    assert int(np.float32(bound)) == bound
    assert bound <= exact < max(bound + 1, float(np.nextafter(np.float32(bound), np.float32(np.inf))))


def test_the_mean_of_a_sum_is_the_mean() -> None:
    rows = np.random.default_rng(2).integers(-9000, 9000, (4, 50)).astype(np.int32)
    expected = rows.mean(axis=0) / SCALE
    np.testing.assert_allclose(mean_of(rows.sum(axis=0).astype(np.int32), 4), expected, rtol=1e-6)


def test_sums_that_could_wrap_around_are_refused() -> None:
    require_room(10.0, 1000)
    require_room(104_000.0, 5)
    with pytest.raises(FinLoraError, match="max_norm below 104857"):
        require_room(104_900.0, 5)
