"""Ratios, bounds and sentences from seconds that are known."""

import pytest

from finlora.benchmarks.speed.bounds import paragraph, passes_over_base
from finlora.benchmarks.speed.findings import findings
from finlora.benchmarks.speed.measurements import Measurements, rate, times_as_fast, tokens_per_second
from finlora.benchmarks.speed.plan import timed
from finlora.benchmarks.speed.traffic import KINDS

ABOUT = {"part": "decode", "unit": "u", "batch": 1, "prompt_tokens": 8, "steps": 4}


def decode(name, seconds, base_bytes, **more):
    """A record of decode steps that read the base only."""
    read = dict.fromkeys(KINDS, 0.0) | {"base": base_bytes}
    return timed("decode", name, seconds, **ABOUT, read_bytes=read, flops=1e9, **more)


@pytest.fixture
def found():
    """One LoRA, the base and two modes, on a machine that reads 100 GB/s and multiplies 1 TFLOP/s."""
    limits = [
        {"quantity": "limit", "contender": "read", "bytes": 1e11, "seconds": [1.0, 1.0, 9.0]},
        {"quantity": "limit", "contender": "copy", "bytes": 4e10, "seconds": [1.0]},
        {"quantity": "limit", "contender": "matrix times matrix", "flops": 1e12, "seconds": [1.0]},
    ]
    draft = {"passes": 6, "proposed": 4, "accepted": 2}
    return Measurements(
        [
            *limits,
            decode("base", [0.009, 0.010, 0.011], 1e9),
            decode("lora", [0.020, 0.018, 0.022], 1e9),
            decode("exact", [0.040, 0.036, 0.055], 2e9),
            decode("draft", [0.030, 0.030, 0.030], 1.5e9, **draft),
        ]
    )


def test_a_ratio_is_of_medians_and_its_range_of_turns():
    ratio = times_as_fast([2.0, 1.0, 4.0], [4.0, 4.0, 4.0])
    assert (ratio.value, ratio.low, ratio.high) == (2.0, 1.0, 4.0)
    assert ratio.text(".1f") == "2.0 (1.0 to 4.0)"


def test_a_rate_turns_the_median_round():
    speed = rate([0.5, 0.25, 1.0], 2)
    assert (speed.value, speed.low, speed.high) == (4.0, 2.0, 8.0)


def test_a_contender_is_compared_within_its_comparison(found):
    ratio = found.against(found.find("decode", "exact"))
    assert (ratio.value, ratio.low, ratio.high) == pytest.approx((0.5, 0.4, 0.5))
    assert found.against(found.find("decode", "exact") | {"unit": "another"}) is None


def test_bound_and_ceiling_follow_from_bytes(found):
    exact = found.find("decode", "exact")
    assert found.machine.bytes_per_second == 1e11
    assert found.bound(exact) == pytest.approx(0.02)
    assert found.ceiling(exact) == pytest.approx(0.5)
    assert passes_over_base(found, exact) == pytest.approx(2.0)


def test_multiplications_bound_what_reads_little(found):
    assert found.bound(found.find("decode", "exact") | {"flops": 1e12}) == pytest.approx(1.0)


def test_all_rows_of_a_batch_count_as_tokens(found):
    assert tokens_per_second(found.find("decode", "lora") | {"batch": 4}).value == pytest.approx(200)


def test_the_paragraph_says_what_was_measured(found):
    words = paragraph(found, found.find("decode", "exact"))
    assert "2,000.0 MB, the base's weights 2.00 times; at 100.0 GB/s that takes 20.00 ms" in words
    assert "0.50 (0.40 to 0.50) of one LoRA where reading alone would allow 0.50" in words
    assert "Of the measured 40.00 ms, 50 % are that bound, and 20.00 ms" in words


def test_draft_is_computed_for_other_acceptances(found):
    words = paragraph(found, found.find("decode", "draft"))
    assert "Of 4 proposals 2 were accepted, and 4 tokens took 6 passes" in words
    # A pass takes 0.03 * 4 / 6 seconds, one LoRA 0.02.
    assert "0.77 at 70 %, 0.83 at 80 %, 0.91 at 90 %" in words


def test_findings_name_the_fastest_mode_and_exact(found):
    first, second = findings(found)
    assert first.startswith("Mixture, draft decodes at 0.67 (0.60 to 0.73) times")
    assert second.startswith("Mixture, exact (X-LoRA as published) decodes at 0.50")


def test_findings_of_nothing_say_so():
    assert findings(Measurements([]))[0].startswith("The parts that were run have no comparison")
