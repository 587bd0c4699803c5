"""Peaks and seconds belong to the block that is measured."""

import os
import time

import numpy as np
import pytest

from finlora.benchmarks.measure import measured

MEBIBYTE = 2**20


def test_time_and_memory_of_a_block():
    with measured() as cost:
        array = np.ones(64 * MEBIBYTE, dtype=np.uint8)
        time.sleep(0.05)
        del array
    assert cost.seconds >= 0.05
    assert cost.peak_bytes > 64 * MEBIBYTE


@pytest.mark.skipif(
    not os.access("/proc/self/clear_refs", os.W_OK), reason="this system cannot reset the peak of a process"
)
def test_an_earlier_peak_does_not_count():
    with measured() as large:
        array = np.ones(256 * MEBIBYTE, dtype=np.uint8)
        del array
    with measured() as small:
        pass
    assert small.peak_bytes < large.peak_bytes - 200 * MEBIBYTE


def test_a_block_that_fails_is_measured_too():
    with pytest.raises(ValueError, match="late"), measured() as cost:
        raise ValueError("late")
    assert cost.peak_bytes > 0
