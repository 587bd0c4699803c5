"""Which run notebooks look at. That a tiny one can be made is tested with the notebooks."""

from pathlib import Path

import pytest

from finlora.benchmarks.tiny_run import RUN_VARIABLE, find_or_make_run
from finlora.experts.errors import FinLoraError


def finished(folder: Path) -> Path:
    """A folder that looks like a finished run."""
    folder.mkdir(parents=True)
    (folder / "results.jsonl").touch()
    return folder


def test_the_variable_comes_first_then_the_demo_then_the_tiny_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv(RUN_VARIABLE, raising=False)
    tiny = finished(tmp_path / "runs" / "tiny")
    assert find_or_make_run(tmp_path / "runs").folder == tiny
    demo = finished(tmp_path / "runs" / "demo")
    assert find_or_make_run(tmp_path / "runs").folder == demo
    mine = finished(tmp_path / "mine")
    monkeypatch.setenv(RUN_VARIABLE, str(mine))
    assert find_or_make_run(tmp_path / "runs").folder == mine


def test_a_named_folder_without_results_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(RUN_VARIABLE, str(tmp_path))
    with pytest.raises(FinLoraError, match=r"FINLORA_RUN names .* holds no finished run"):
        find_or_make_run(tmp_path)
