"""S-LoRA's workload: equal draws, its distributions, and requests that say what the trace says."""

import numpy as np
import pytest

from finlora.benchmarks.serving.trace import (
    TraceRequest,
    Workload,
    as_requests,
    expert_sets,
    make_trace,
)
from finlora.experts.errors import FinLoraError


def slora_draws(workload: Workload) -> tuple[list[int], list[int], list[int], list[float]]:
    """The draws as S-LoRA's script makes them: NumPy's global generator, in this order."""
    state = np.random.get_state()
    try:
        np.random.seed(workload.seed)
        total = int(workload.rate * workload.duration)
        indices = (np.random.power(workload.alpha, total) * workload.adapters).astype(int)
        inputs = np.random.randint(workload.input_range[0], workload.input_range[1], total)
        outputs = np.random.randint(workload.output_range[0], workload.output_range[1], total)
        cv = workload.cv
        intervals = np.random.gamma(1 / (cv * cv), cv * cv / workload.rate, total)
    finally:
        np.random.set_state(state)
    return indices.tolist(), inputs.tolist(), outputs.tolist(), np.cumsum(intervals).tolist()


@pytest.mark.parametrize(
    "workload",
    [
        Workload(),
        Workload(adapters=200, alpha=0.3, cv=4.0, rate=2.0, duration=300.0),
        Workload(adapters=7, input_range=(4, 64), output_range=(2, 9), rate=3.5, duration=11.0),
    ],
)
def test_the_trace_is_s_loras_to_the_digit(workload):
    trace = make_trace(workload)
    adapters, prompts, answers, arrivals = slora_draws(workload)
    assert [one.adapter for one in trace] == adapters
    assert [one.prompt_tokens for one in trace] == prompts
    assert [one.new_tokens for one in trace] == answers
    np.testing.assert_allclose([one.arrival for one in trace], arrivals, rtol=1e-12)


def test_known_first_request():
    """Numbers that seed 42 gives, written down, so that another generator cannot slip in."""
    first = make_trace(Workload(adapters=1000))[0]
    assert first.adapter == int(0.3745401188473625 * 1000)
    assert 8 <= first.prompt_tokens < 512


def test_the_power_law_prefers_the_first_adapter_as_computed():
    """P(adapter 0) = n^-alpha."""
    trace = make_trace(Workload(adapters=200, alpha=0.1, rate=1000.0, duration=10.0))
    share = sum(one.adapter == 0 for one in trace) / len(trace)
    assert share == pytest.approx(200**-0.1, abs=0.02)


def test_arrivals_have_the_rate_and_the_variation():
    trace = make_trace(Workload(rate=50.0, duration=400.0, cv=2.0))
    intervals = np.diff([0.0, *(one.arrival for one in trace)])
    assert len(trace) == 20_000
    assert intervals.mean() == pytest.approx(1 / 50, rel=0.05)
    assert intervals.std() / intervals.mean() == pytest.approx(2.0, rel=0.05)


@pytest.mark.parametrize(
    ("changes", "named"),
    [({"rate": 0.0}, "rate"), ({"input_range": (5, 5)}, "input-range"), ({"alpha": -1.0}, "alpha")],
)
def test_a_workload_without_requests_is_refused(changes, named):
    with pytest.raises(FinLoraError, match=named):
        Workload(**changes)


def test_sets_have_different_experts_and_weights_that_add_up():
    sets = expert_sets([f"e{i}" for i in range(9)], 50, 3)
    assert sets == expert_sets([f"e{i}" for i in range(9)], 50, 3)
    assert {len(one) for one in sets} == {3}
    assert all(sum(one.values()) == pytest.approx(1.0) for one in sets)
    assert len({tuple(sorted(one)) for one in sets}) > 20
    with pytest.raises(FinLoraError, match="at least as many"):
        expert_sets(["only"], 1, 2)


def test_requests_repeat_the_word_and_ignore_the_end():
    trace = [TraceRequest(0, 1, 5, 3, 0.25)]
    [(arrival, request)] = as_requests(trace, ["a", {"b": 0.5, "c": 0.5}], [7, 8])
    assert arrival == 0.25
    assert list(request.prompt_ids) == [7, 8, 7, 8, 7]
    assert request.model == {"b": 0.5, "c": 0.5}
    assert (request.max_new_tokens, request.ignore_eos, request.temperature) == (3, True, 0.0)
