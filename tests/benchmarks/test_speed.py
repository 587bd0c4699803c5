"""The speed benchmark on a tiny base: everything runs, tokens agree, and the table says what was measured."""

import json

import pytest

from finlora.benchmarks import speed
from finlora.benchmarks.speed_shape import SpeedShape
from finlora.experts.errors import FinLoraError

TINY = SpeedShape(hidden_size=32, layers=2, intermediate_size=48, heads=4, vocabulary=97, rank=2)


def test_contenders_take_turns_and_the_first_round_does_not_count() -> None:
    calls: list[str] = []
    times = speed.take_turns({name: lambda name=name: calls.append(name) for name in "ab"}, 2)
    assert calls == ["a", "b"] * 3
    assert {name: len(seconds) for name, seconds in times.items()} == {"a": 2, "b": 2}


def test_everything_is_compared(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(speed, "LENGTHS", ((8, 4),))
    monkeypatch.setattr(speed, "EXPERT_COUNTS", (2, 3))
    monkeypatch.setattr(speed, "TRAINING_TOKENS", (1, 6))
    records = speed.benchmark_speed(tmp_path / "speed", TINY, repeats=1)
    written = [json.loads(line) for line in (tmp_path / "speed" / "speed.jsonl").read_text().splitlines()]
    assert written == json.loads(json.dumps(records))
    generated = [record["contender"] for record in records if record["comparison"] == "generate"]
    assert generated == ["base", "peft_lora", "lora", "exact", "exact_top2", "peft_xlora"]
    assert sum(record["comparison"] == "router training" for record in records) == 7
    table = (tmp_path / "speed" / "speed.md").read_text()
    assert table.count("| 1.00 |") >= 3
    with pytest.raises(FinLoraError, match="exists already"):
        speed.benchmark_speed(tmp_path / "speed", TINY, repeats=1)
