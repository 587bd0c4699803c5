"""The comparison of federated trainings: what it trains, that it resumes, what the report says."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("flwr")
pytest.importorskip("opacus")
pytest.importorskip("dp_accounting")

from finlora.benchmarks.federated import attack, cell, run, scores
from finlora.benchmarks.federated.cell import LessNoise, divided, held_out_records, training_records
from finlora.benchmarks.federated.costs import COSTS_FILE, measure_costs
from finlora.benchmarks.federated.plan import FEDERATED_ARMS, XBRL_TASKS, Cell, FederatedPlan
from finlora.benchmarks.federated.report import build_report
from finlora.benchmarks.federated.scores import FoundScores, name_of
from finlora.benchmarks.results import json_lines, read_json_lines
from finlora.experts.base_model import Base
from finlora.experts.tasks.suites import Suite
from finlora.experts.tasks.task import Example

SMALL = FederatedPlan(
    banks=3,
    alphas=(1.0,),
    epsilons=(math.inf, 8.0),
    seeds=(0,),
    more_records=(),
    train_examples=120,
    held_out=24,
    test_examples=2,
    rank=2,
    rounds=1,
    batch_size=2,
    private_rounds=1,
    private_batch_size=8,
)


@pytest.fixture(autouse=True)
def toy_suite(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short questions in place of the embedded suite's: eight on each company, the same ones in all tasks."""

    def build(task: str, split: str) -> list[Example]:
        count = 2000 if split == "train" else 40
        return [Example(f"{task} {split} {i}?", str(i % 10), f"{split} {i // 8}") for i in range(count)]

    suite = Suite("embedded", "Toys", XBRL_TASKS, build)
    for module in (cell, scores):
        monkeypatch.setattr(module, "get_suite", lambda _name: suite)


@pytest.fixture
def tiny_base(make_base, monkeypatch: pytest.MonkeyPatch) -> Base:
    """A random base in place of the embedded one, which takes minutes where this takes seconds."""
    base = make_base()
    monkeypatch.setattr(run, "load_base", lambda *_arguments: base)
    return base


def made_up_cells() -> list[dict]:
    """Cells whose scores are known: central 90, federated 81, alone 30, epsilon 8 half of it; base 0."""
    plan = FederatedPlan(seeds=(0, 1))
    levels = {"central": 0.9, "local": 0.3, "base": 0.0}
    random = np.random.default_rng(0)

    def drawn(level: float) -> dict[str, list[float]]:
        return {task: (100.0 * (random.random(40) < level)).tolist() for task in XBRL_TASKS}

    cells = [{"key": "base", "arm": "base", "scores": drawn(0.0)}]
    for one in plan.cells():
        level = levels.get(one.arm, 0.81) * (1 if one.epsilon == math.inf else 0.5)
        privacy = [{"records": 1600, "noise_multiplier": 0.5, "prv": 7.999, "pld": 7.989}]
        cells.append(
            {
                "key": one.key,
                "arm": one.arm,
                "alpha": one.alpha,
                "epsilon": "inf" if one.epsilon == math.inf else one.epsilon,
                "seed": one.seed,
                "more_records": one.more_records,
                "records": {"bank-0": 7200},
                "scores": drawn(level),
                "privacy": [] if one.epsilon == math.inf else privacy,
            }
            | (
                {
                    "rounds": 60,
                    "seconds_per_round": 2.0,
                    "bytes_up_per_bank": 7168,
                    "bytes_down_per_bank": 7168,
                }
                if one.arm in FEDERATED_ARMS
                else {}
            )
        )
    return cells


def test_the_plan_has_each_training_once() -> None:
    cells = list(FederatedPlan().cells())
    assert len({one.key for one in cells}) == len(cells)
    asked = {(one.arm, one.epsilon, one.seed) for one in cells if one.alpha == 0.5 and one.more_records == 1}
    assert len(asked) == 8 * 5 * 3
    assert [one.seed for one in cells[:6]] == [0, 1, 2, 0, 1, 2]
    assert all(FederatedPlan().settings(one).banks in (1, 5) for one in cells)


def test_records_of_banks_are_apart_from_those_of_the_attack() -> None:
    """No company is in two banks, nor both in a bank and held out; the test questions share none either."""
    plan = FederatedPlan()
    parts = divided(plan, Cell("ffa", 0.5, math.inf, 0))
    # The same company may be asked about in several tasks; within a task it is in one bank.
    for task in XBRL_TASKS:
        known = {example.context: example.group for example in training_records(plan)[task]}
        companies = [{known[e.context] for e in part if e.context in known} for part in parts.values()]
        assert sum(map(len, companies)) == len(set().union(*companies))
    trained = {example.group for part in parts.values() for example in part}
    held = held_out_records(plan)
    assert len(held) > 200
    assert not trained & {example.group for example in held}
    asked = {e.group for task in XBRL_TASKS for e in cell.get_suite("embedded").examples(task, "test")}
    assert not trained & asked


def test_less_noise_is_smaller_and_samples_alike() -> None:
    noise = LessNoise(4.0)
    assert noise.normal((100, 100)).std() == pytest.approx(0.25, rel=0.05)
    assert noise.uniform(1000).mean() == pytest.approx(0.5, abs=0.06)


def test_a_training_becomes_a_line_and_is_not_repeated(
    tmp_path: Path, tiny_base: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three cells on a tiny base: together, alone, private; a second run adds nothing."""
    chosen = [Cell("core", 1.0, 8.0, 0), Cell("local", 1.0, math.inf, 0), Cell("fedsa", 1.0, math.inf, 0)]
    monkeypatch.setattr(FederatedPlan, "cells", lambda _plan: iter(chosen))
    monkeypatch.setattr(run, "build_report", lambda _folder: None)
    run.run(tmp_path, SMALL)
    before = (tmp_path / run.CELLS_FILE).read_text()
    records = {record["key"]: record for record in read_json_lines(tmp_path / run.CELLS_FILE)}
    assert list(records) == ["base", *(one.key for one in chosen)]
    private = records[chosen[0].key]
    assert len(private["privacy"]) == 3
    assert all(0 <= one["prv"] - one["pld"] <= 0.02 and one["prv"] <= 8 for one in private["privacy"])
    assert private["rounds"] == 1
    assert all(len(scores) == 2 for record in records.values() for scores in record["scores"].values())
    monkeypatch.setattr(cell, "simulate", None)
    run.run(tmp_path, SMALL)
    assert (tmp_path / run.CELLS_FILE).read_text() == before


def test_attacks_are_written_down(tmp_path: Path, tiny_base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both experts are trained with canaries among their records, and attacked; again, nothing is added."""
    monkeypatch.setattr(attack, "MEMBERS", 16)
    monkeypatch.setattr(attack, "OVERFIT", FederatedPlan().settings(Cell("central", 1.0, math.inf, 0)))
    object.__setattr__(attack.OVERFIT, "rounds", 1)
    run.attack(tmp_path, SMALL)
    overfitted, private = read_json_lines(tmp_path / attack.ATTACKS_FILE)
    assert (overfitted["epsilon"], private["epsilon"]) == ("inf", 4.0)
    for record in (overfitted, private):
        assert [one["attack"] for one in record["attacks"]] == ["loss", "calibrated"]
        assert record["canaries"]["guessed"] == 40
    monkeypatch.setattr(attack, "simulate", None)
    run.attack(tmp_path, SMALL)


def test_the_report_says_what_the_cells_say(tmp_path: Path) -> None:
    cells = made_up_cells()
    found = FoundScores(cells)
    ffa, central = name_of("ffa", 0.5, "inf"), name_of("central", 0.5, "inf")
    expected = np.mean(
        [
            np.mean(c["scores"][t])
            for c in cells
            if c["key"].startswith("ffa-alpha0.5-epsiloninf")
            for t in XBRL_TASKS
        ]
    )
    assert found.score(ffa).value == pytest.approx(expected)
    share = found.share(ffa, central)
    assert share is not None
    assert share.low < 90 < share.high
    assert share.value == pytest.approx(100 * found.score(ffa).value / found.score(central).value)
    (tmp_path / "cells.jsonl").write_text(json_lines(cells))
    (tmp_path / "plan.json").write_text(json.dumps(FederatedPlan().__dict__))
    (tmp_path / "attacks.jsonl").write_text(
        json_lines(
            [
                {
                    "expert": "overfitted without privacy",
                    "epsilon": "inf",
                    "attacks": [{"attack": "loss", "auc": 0.98, "low": 0.95, "high": 1.0, "tpr_at_1": 0.8}],
                    "canaries": {"correct": 40, "guessed": 40, "epsilon_low": 2.55},
                }
            ]
        )
    )
    measure_costs(tmp_path / COSTS_FILE, values=64, banks=3)
    build_report(tmp_path)
    text = (tmp_path / "report.md").read_text()
    assert f"{found.score(ffa).value:.1f}" in text
    assert "0.980 (0.950 to 1.000)" in text
    assert "2 seeds" in text
    assert "0.0100 to 0.0100" in text
    assert "28,800" in text
    assert "no number of records that was tried keeps 80 %" in text
    page = (tmp_path / "report.html").read_text()
    assert "plot-utility" in page
    assert "Plotly" in page


def test_half_a_run_has_a_report(tmp_path: Path) -> None:
    """Whatever is missing is left out, not made up."""
    cells = [
        one
        for one in made_up_cells()
        if one["key"] == "base" or one["key"].startswith("central-alpha0.5-epsiloninf-seed0")
    ]
    (tmp_path / "cells.jsonl").write_text(json_lines(cells))
    (tmp_path / "plan.json").write_text(json.dumps(FederatedPlan().__dict__))
    build_report(tmp_path)
    text = (tmp_path / "report.md").read_text()
    assert "1 seed)" in text
    assert "| Each bank alone | - | - | - | - | - |" in text
    assert "## Attacks" not in text
