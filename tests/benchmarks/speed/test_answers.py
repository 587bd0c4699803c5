"""Answers of trained mixtures, timed: equal work for all, and sums over tasks."""

from dataclasses import replace

import pytest

from finlora.benchmarks.speed import answers
from finlora.benchmarks.speed.answers_section import all_tasks, answers_section
from finlora.benchmarks.speed.machine import Machine
from finlora.benchmarks.speed.measurements import Measurements
from finlora.benchmarks.speed.plan import Bench
from finlora.moe.checkpoint import save_mixture
from finlora.moe.mode import Mode
from finlora.router.settings import XLoRASettings
from finlora.router.train import new_mixture


@pytest.fixture
def records(make_base, make_expert, tmp_path, workshop, tiny_plan, monkeypatch):
    """Two tasks, a mixture in mode exact and one in mode prompt."""
    base = make_base(max_position_embeddings=2048)
    experts = {name: make_expert(name, seed=number) for number, name in enumerate(("headline", "sentiment"))}
    folders = [
        save_mixture(
            new_mixture(base, experts, XLoRASettings(), seed=0, mode=Mode(name=name)), tmp_path / name
        )
        for name in ("exact", "prompt")
    ]
    monkeypatch.setattr(answers, "load_base", lambda name, quantization: base)
    plan = replace(tiny_plan, mixtures=tuple(folders), questions=2, answers_on=("none",))
    bench = Bench(workshop, plan, 2, Machine(1.0, 1.0))
    return [
        {"part": "answers", "unit": unit.name} | record
        for unit in answers.units(plan)
        for record in unit.measure(bench)
    ]


def test_every_mode_answers_every_task(records) -> None:
    assert [(one["task"], one["contender"]) for one in records] == [
        (task, name) for task in ("headline", "sentiment") for name in ("exact", "draft", "prompt", "lora")
    ]
    assert all(len(one["seconds"]) == 2 and one["tokens"] >= one["questions"] for one in records)
    drafts = [one for one in records if one["contender"] == "draft"]
    assert all(0 < one["passes"] <= 2 * one["tokens"] for one in drafts)
    assert not any("passes" in one for one in records if one["contender"] != "draft")
    section = answers_section(Measurements(records))
    assert section is not None
    assert section.bars[0].label == "One LoRA"
    assert section.bars[0].number.value == 1


def test_no_mixtures_no_units(tiny_plan) -> None:
    assert answers.units(tiny_plan) == []
    assert answers_section(Measurements([])) is None


def test_turns_of_all_tasks_are_added() -> None:
    one = {
        "contender": "draft",
        "seconds": [1.0, 2.0],
        "tokens": 3,
        "passes": 4,
        "proposed": 2,
        "accepted": 1,
    }
    other = {"contender": "draft", "seconds": [10.0, 20.0], "tokens": 30, "passes": 40}
    assert all_tasks([one, other]) == {
        "contender": "draft",
        "seconds": [11.0, 22.0],
        "tokens": 33,
        "passes": 44,
    }
