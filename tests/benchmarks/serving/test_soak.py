"""Soak and fuzzing judge rightly, and a real server stands a moment of both."""

import random
from pathlib import Path

import pytest

from finlora.benchmarks.serving.odd_requests import MAKERS, odd_requests
from finlora.benchmarks.serving.random_experts import make_random_experts
from finlora.benchmarks.serving.server_process import ServerProcess, serve_command
from finlora.benchmarks.serving.soak import Names, SoakReport, soak
from finlora.experts.base_model import load_base
from finlora.experts.free_port import free_port

IDLE = {"queued": 0, "running": 0, "cache_pages": 0}


def report(sizes: list[int], **changes) -> SoakReport:
    """A soak with these sizes of the server, a minute apart."""
    memory = [(60.0 * i, size) for i, size in enumerate(sizes)]
    values = {"actions": {}, "unexpected": [], "files": [9] * len(sizes), "engine": IDLE} | changes
    found = SoakReport(minutes=float(len(sizes)), memory=memory, **values)
    found.judge(alive=True)
    return found


def test_flat_memory_and_an_idle_engine_pass():
    assert report([50, 90, 99, *[100] * 20]).faults == []


def test_growth_after_the_warm_up_is_a_fault():
    found = report([100 + 2 * i for i in range(30)])
    assert any("memory grew" in fault for fault in found.faults)
    assert found.bytes_per_hour == pytest.approx(120)


@pytest.mark.parametrize("name", ["queued", "running", "cache_pages"])
def test_what_is_held_at_the_end_is_a_fault(name):
    assert report([100] * 10, engine=IDLE | {name: 1}).faults == [f"{name} is 1 at the end"]


def test_an_answer_that_nobody_asked_for_is_a_fault():
    assert report([100] * 10, unexpected=["complete: 500"]).faults == ["1 answers that nobody asked for"]


def test_a_name_is_changed_by_one_client_at_a_time():
    names, generator = Names(["fixed"], ["a"]), random.Random(0)
    first = names.new(generator)
    assert first is not None
    assert names.take_existing(generator) is None
    names.settled(first, there=True)
    assert names.take_existing(generator) == first
    assert names.take_existing(generator) is None
    assert not names.may_be_gone("fixed")
    assert names.may_be_gone({"fixed": 0.5, first: 0.5})


def test_odd_requests_come_again_with_their_seed_and_are_of_all_kinds():
    first, second = (list(odd_requests(random.Random(1), 300)) for _ in range(2))
    assert first == second
    assert len({odd.kind for odd in first}) == len(MAKERS)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """`finlora serve` on the embedded base with four experts."""
    pytest.importorskip("fastapi")
    folder: Path = tmp_path_factory.mktemp("served")
    make_random_experts(load_base("embedded", "none"), folder / "source", 4, ranks=(2, 4))
    port = free_port()
    command = serve_command(folder / "registry", folder / "source", port)
    with ServerProcess(command, port, folder / "server.log") as running:
        yield running


def test_a_server_stands_a_moment_of_soak(server):
    names = [f"expert-{i:05}" for i in range(4)]
    found = soak(server, Names(names, names), minutes=0.07, clients=4, pause=0.05)
    assert found.unexpected == []
    assert sum(found.actions.values()) > 8
    assert (found.engine["queued"], found.engine["running"]) == (0, 0)


def test_a_server_stands_a_moment_of_fuzzing(server):
    pytest.importorskip("schemathesis")
    from finlora.benchmarks.serving.fuzz import fuzz

    found = fuzz(server, requests=120, seed=0)
    assert found.requests >= 120
    assert found.faults == []
    assert found.same_answer
    assert any(name.startswith("schemathesis") for name in found.statuses)
