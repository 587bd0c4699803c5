"""Results survive writing and reading, and a bad file is named with its line."""

from pathlib import Path

import pytest

from finlora.benchmarks.results import Result, read_results, write_results
from finlora.experts.errors import FinLoraError


def test_results_round_trip(tmp_path: Path):
    results = [
        Result(method="xlora", task="macro", metric="score", value=81.25, low=80.0, high=82.5, n=400, seed=1),
        Result(
            method="base", task="fpb", metric="score", value=0.0, task_version=2, seconds=1.5, peak_bytes=10
        ),
    ]
    write_results(tmp_path / "results.jsonl", results)
    assert read_results(tmp_path / "results.jsonl") == results
    assert [path.name for path in tmp_path.iterdir()] == ["results.jsonl"]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('{"method": "base"}\n', "record 1"),
        ("\n{nonsense\n", "line 2: not JSON"),
        ("[1]\n", "line 1: a JSON object is needed"),
        ('{"method": "b", "task": "t", "metric": "m", "value": 1, "colour": 1}\n', "unknown fields colour"),
    ],
)
def test_a_bad_file_is_named_with_its_fault(tmp_path: Path, text: str, fault: str):
    path = tmp_path / "results.jsonl"
    path.write_text(text)
    with pytest.raises(
        FinLoraError, match=rf"results\.jsonl, {fault}" if "line" in fault or "record" in fault else fault
    ):
        read_results(path)


def test_a_missing_file_is_a_clear_error(tmp_path: Path):
    with pytest.raises(FinLoraError, match="Cannot read"):
        read_results(tmp_path / "none.jsonl")
