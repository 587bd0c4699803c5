"""From turns to claims: ratios with intervals, records found again, and a report that says what they say."""

import json
import math

import pytest
from scipy.stats import ttest_1samp

from finlora.benchmarks.serving.ratios import average, geometric, ratio
from finlora.benchmarks.serving.records import Records, value_of
from finlora.benchmarks.serving.report import build_report
from finlora.benchmarks.serving.settings import ServingPlan
from finlora.experts.errors import FinLoraError


def test_a_ratio_pairs_the_turns():
    """Both twice as slow in the second turn: the ratio is sure all the same."""
    found = ratio([10.0, 5.0, 10.0], [5.0, 2.5, 5.0])
    assert (found.value, found.low, found.high) == pytest.approx((2.0, 2.0, 2.0))


def test_intervals_are_students():
    values = [1.1, 0.9, 1.3, 1.0, 1.05]
    found = average(values)
    interval = ttest_1samp(values, 0.0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    logs = ttest_1samp([math.log(value) for value in values], 0.0).confidence_interval(0.95)
    assert geometric(values).high == pytest.approx(math.exp(logs.high))


def test_one_turn_has_no_interval():
    assert average([2.0]).text() == "2.00 (one turn)"


def turn(part: str, contender: str, number: int, throughput: float, **about) -> dict:
    """A record of one turn."""
    numbers = {"throughput": throughput, "requests_per_cpu_second": throughput, "first_token": {"p50": 0.1}}
    whole = {"part": part, "contender": contender, "turn": number, "commit": "c", "quantization": "none"}
    return whole | numbers | about


def test_records_pair_turns_by_their_number_and_not_by_their_place():
    found = Records(
        [
            turn("experts", "engine", 1, 8.0, experts=5),
            turn("experts", "engine", 0, 4.0, experts=5),
            turn("experts", "peft_mixed", 0, 2.0, experts=5),
            turn("experts", "peft_mixed", 1, 4.0, experts=5),
        ]
    )
    both = found.ratio("experts", "throughput", {"contender": "engine"}, {"contender": "peft_mixed"})
    assert both is not None
    assert (both.low, both.high) == pytest.approx((2.0, 2.0))
    assert found.ratio("experts", "throughput", {"contender": "engine"}, {"contender": "nobody"}) is None
    assert math.isnan(value_of({"latency": {}}, "latency.p50"))


def test_the_report_says_what_the_records_say(tmp_path):
    records = [
        turn("experts", name, number, speed, experts=count)
        for number in range(3)
        for name, count, speed in (
            ("engine", 5, 30.0),
            ("engine", 1000, 27.0),
            ("peft_set_adapter", 1000, 4.5),
        )
    ]
    records += [
        turn("models", name, number, speed, experts=1000)
        for number in range(3)
        for name, speed in (("expert", 30.0), ("mixture_trunk", 24.0))
    ]
    records += [
        {"part": "cold", "contender": "engine", "pair": i, "commit": "c"}
        | {"cold": {"first_token": 0.03, "loads": 1}, "warm": {"first_token": 0.02, "loads": 0}}
        for i in range(3)
    ]
    lines = "".join(json.dumps(record) + "\n" for record in records)
    (tmp_path / "serving.jsonl").write_text(lines)
    machine = {"device": "CPU", "threads": 1, "torch": "2"}
    (tmp_path / "config.json").write_text(
        json.dumps({"plan": {"base": "embedded", "experts": [5, 1000]}, "repeats": 3, "machine": machine})
    )
    build_report(tmp_path)
    text = (tmp_path / "serving.md").read_text()
    assert "1,000 registered experts answer 0.90 (0.90 to 0.90)" in text
    assert "With 1,000 experts on the none base the engine answers 6.0 (6.0 to 6.0)" in text
    assert "Mixture, trunk on the none base: 0.80 (0.80 to 0.80)" in text
    assert "A cold expert adds 10.0 (10.0 to 10.0) ms" in text
    assert "Memory" not in text
    page = (tmp_path / "report.html").read_text()
    assert "plot-experts" in page
    assert "0.90 (0.90 to 0.90)" in page


@pytest.mark.parametrize(
    ("changes", "named"),
    [({"rate": 0.0}, "rate"), ({"peft_experts": (7,)}, "lacks"), ({"set_size": 2000}, "set-size")],
)
def test_a_plan_that_measures_nothing_is_refused(changes, named):
    with pytest.raises(FinLoraError, match=named):
        ServingPlan(**changes)
