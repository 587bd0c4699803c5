"""Published scores stand beside a run's where the file is there, and nowhere where it is not."""

import json
from pathlib import Path

import pytest

from finlora.benchmarks.published import FILE, SETTINGS, published_table
from finlora.benchmarks.results import Result, ResultIndex

TASKS = ("headline", "xbrl_term", "finer")


@pytest.fixture
def index() -> ResultIndex:
    """A run's scores on three tasks."""
    return ResultIndex(
        Result(method=method, task=task, metric="score", value=value, low=value - 1, high=value + 1)
        for method, value in (("base", 10.0), ("oracle", 50.0), ("xlora", 48.0))
        for task in TASKS
    )


@pytest.fixture
def data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FINLORA_DATA", str(tmp_path))
    return tmp_path


def test_accuracies_stand_beside_ours_and_other_metrics_do_not(index: ResultIndex, data_folder: Path):
    records = [
        {"dataset": "Headline", "setting": SETTINGS["base"], "metric": "accuracy_percent", "value": 12.345},
        {"dataset": "Headline", "setting": SETTINGS["single"], "metric": "accuracy_percent", "value": 67.8},
        {"dataset": "FiNER", "setting": SETTINGS["base"], "metric": "bertscore_f1", "value": 0.5},
    ]
    (data_folder / FILE).parent.mkdir()
    (data_folder / FILE).write_text(json.dumps({"multi_task_table": records}))
    table = published_table(index, TASKS)
    assert table is not None
    assert [row[1:] for row in table.rows] == [
        ("12.3", "67.8", "-", "10.0 (9.0 to 11.0)", "50.0 (49.0 to 51.0)", "48.0 (47.0 to 49.0)")
    ]


def test_without_the_file_there_is_no_table(index: ResultIndex, data_folder: Path):
    assert published_table(index, TASKS) is None
