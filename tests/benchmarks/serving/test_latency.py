"""Numbers of a load test, against values that were computed by hand."""

import pytest

from finlora.benchmarks.serving.latency import satisfaction, stripped, summarize
from finlora.benchmarks.serving.load import LoadRun, Sent


def sent(due: float, first: float | None, finished: float | None, reason: str, tokens: int = 0) -> Sent:
    """A request that was sent on time."""
    return Sent(due, 4, "m", sent=due, first_token=first, finished=finished, reason=reason, new_tokens=tokens)


def test_the_summary_counts_as_s_lora_does():
    run = LoadRun(
        [
            sent(0.0, 3.0, 4.0, "length", 4),
            sent(1.0, 8.0, 9.0, "length", 2),
            sent(2.0, None, 8.0, "aborted"),
            sent(3.0, None, 3.0, "refused"),
            sent(4.0, 5.0, 6.0, "failed", 1),
        ],
        wall_seconds=10.0,
        cpu_seconds=4.0,
    )
    found = summarize(run, rate=1.0)
    assert (found.finished, found.aborted, found.refused, found.failed) == (2, 1, 1, 1)
    assert found.throughput == pytest.approx(0.2)
    assert found.requests_per_cpu_second == pytest.approx(0.5)
    assert found.tokens_per_second == pytest.approx(0.6)
    assert found.latency["mean"] == pytest.approx(6.0)
    assert found.first_token["p50"] == pytest.approx(5.0)
    assert found.per_output_token == pytest.approx((4 / 4 + 8 / 2) / 2)
    # First tokens after 3 s and 7 s; three others never: one of five within the objective.
    assert found.attainment == pytest.approx(0.2)
    assert found.satisfaction == pytest.approx((1 - 0.25) / 5)
    assert found.stripped_throughput is None


def test_stripped_throughput_leaves_out_both_ends():
    assert stripped(100, 50.0, 2.0) == pytest.approx((100 - 40) / 30)
    assert stripped(100, 20.0, 2.0) is None
    assert stripped(40, 50.0, 2.0) is None


def test_satisfaction_falls_from_one_to_zero_at_the_objective():
    assert satisfaction(0.0) == 1.0
    assert satisfaction(3.0) == pytest.approx(0.75)
    assert satisfaction(6.0) == satisfaction(60.0) == 0.0
