"""Experts that are given to a benchmark take the places of those it would train, and nothing else changes."""

import json
import shutil
from pathlib import Path
from types import ModuleType

import pytest

from finlora.benchmarks.comparison import Comparison
from finlora.benchmarks.layout import RunLayout
from finlora.experts.errors import FinLoraError

ROUTER_SEEDS = {"router_seeds": (0,)}


@pytest.fixture(scope="module")
def trained(toy: ModuleType, base_folder: str, tmp_path_factory: pytest.TempPathFactory) -> RunLayout:
    """A run that trained its experts."""
    return toy.run(base_folder, tmp_path_factory.mktemp("trained"), **ROUTER_SEEDS)


@pytest.fixture
def foreign(trained: RunLayout, tmp_path: Path) -> Path:
    """One of its experts as it comes from somebody else: PEFT's two files alone, under any name."""
    folder = tmp_path / "my-adapter"
    shutil.copytree(trained.expert("headline"), folder)
    (folder / "expert.json").unlink()
    return folder


def test_given_experts_score_as_the_same_ones_trained(
    toy: ModuleType, base_folder: str, trained: RunLayout, foreign: Path, tmp_path: Path
):
    given = {"headline": foreign, "sentiment": trained.expert("sentiment")}
    run = toy.run(base_folder, tmp_path / "runs", experts=given, **ROUTER_SEEDS)
    assert toy.scores(run) == toy.scores(trained)
    assert not run.cost("experts/headline").exists()
    config = json.loads(run.config.read_text())
    assert set(config["given_experts"]) == {"headline", "sentiment"}
    # The same command finds all done; with another expert it is another run.
    assert toy.scores(toy.run(base_folder, tmp_path / "runs", experts=given, **ROUTER_SEEDS)) == toy.scores(
        trained
    )
    swapped = given | {"headline": trained.expert("sentiment")}
    with pytest.raises(FinLoraError, match=r"another configuration \(given_experts\.headline was"):
        toy.run(base_folder, tmp_path / "runs", experts=swapped, **ROUTER_SEEDS)


def test_a_run_that_trains_all_experts_keeps_its_hash(trained: RunLayout):
    assert "given_experts" not in json.loads(trained.config.read_text())


def test_experts_that_do_not_belong_are_refused(
    toy: ModuleType, base_folder: str, foreign: Path, tmp_path: Path
):
    with pytest.raises(FinLoraError, match="'finer', which is no task of this run; its tasks are headline"):
        toy.run(base_folder, tmp_path / "unknown", experts={"finer": foreign})
    seeds = Comparison(more_expert_seeds=(1,))
    with pytest.raises(FinLoraError, match="Given experts have one seed"):
        toy.run(base_folder, tmp_path / "seeds", experts={"headline": foreign}, comparison=seeds)
    with pytest.raises(FinLoraError, match=r"which the base embedded does not have|trained on another base"):
        toy.run("embedded", tmp_path / "base", experts={"headline": foreign}, quantization="none")
