"""The whole load test on small numbers, and that engine and PEFT give the same tokens on the same trace."""

import json

import pytest

from finlora.benchmarks.serving.experiments import workload_of
from finlora.benchmarks.serving.load import run_load
from finlora.benchmarks.serving.run import benchmark_serving
from finlora.benchmarks.serving.settings import ServingPlan
from finlora.benchmarks.serving.trace import as_requests, make_trace
from finlora.benchmarks.serving.workshop import Workshop
from finlora.experts.errors import FinLoraError

PLAN = ServingPlan(
    quantizations=("none",),
    experts=(1, 3),
    peft_experts=(3,),
    rank=2,
    rate=20.0,
    duration=0.2,
    input_range=(4, 9),
    output_range=(2, 5),
    set_size=2,
    models=1,
    memory_pages=64,
    overload_seconds=0.2,
    overload_cvs=(1.0,),
    overload_turns=1,
    cold_requests=1,
)


def test_engine_and_peft_give_the_same_tokens(tmp_path):
    workshop = Workshop(tmp_path / "models", PLAN)
    names = list(workshop.experts(3))
    trace = make_trace(workload_of(PLAN, 3, rate=40.0))
    requests = as_requests(trace, names, workshop.word)
    tokens = {}
    for name, server in (
        ("engine", workshop.engine(3, "none")),
        ("set_adapter", workshop.set_adapter(names, "none")),
        ("mixed", workshop.mixed(names, "none")),
    ):
        tokens[name] = [one.tokens for one in run_load(server, requests, stall=60.0).requests]
        server.close()
    assert [len(one) for one in tokens["engine"]] == [one.new_tokens for one in trace]
    assert tokens["engine"] == tokens["set_adapter"] == tokens["mixed"]


def test_a_run_measures_every_part_once_and_goes_on_where_it_stopped(tmp_path):
    folder = tmp_path / "run"
    records = benchmark_serving(folder, plan=PLAN, repeats=2)
    parts = {record["part"] for record in records}
    assert parts == {"experts", "models", "overload", "cold", "memory"}
    servers = [(one["contender"], one["experts"]) for one in records if one["part"] == "experts"]
    assert servers == 2 * [("engine", 1), ("engine", 3), ("peft_set_adapter", 3), ("peft_mixed", 3)]
    kinds = [one["contender"] for one in records if one["part"] == "models"]
    assert kinds == 2 * ["base", "expert", "weights", "mixture_trunk", "mixture_exact"]
    assert all(one["finished"] == one["requests"] for one in records if one["part"] in ("experts", "models"))
    (cold,) = (one for one in records if one["part"] == "cold")
    assert (cold["cold"]["loads"], cold["warm"]["loads"]) == (1, 0)
    assert not (folder / "models").exists()
    assert benchmark_serving(folder, plan=PLAN, repeats=2) == records
    assert json.loads((folder / "config.json").read_text())["repeats"] == 2
    assert "# Serving many experts" in (folder / "serving.md").read_text()


def test_overload_needs_a_throughput_to_exceed(tmp_path):
    with pytest.raises(FinLoraError, match="add the part experts"):
        benchmark_serving(tmp_path / "run", plan=PLAN, repeats=1, parts=("overload",))
