"""A whole speed run on a tiny base: every part, going on after an interruption, and what is refused."""

import json
import re
from dataclasses import replace

import pytest

from finlora.benchmarks.speed import memory, run
from finlora.benchmarks.speed.contenders import CONTENDERS
from finlora.benchmarks.speed.settings import PARTS, SpeedPlan, SpeedShape
from finlora.benchmarks.speed.training import TRAINING
from finlora.experts.errors import FinLoraError

TIMED = ("base", "lora", "exact", "exact_top2", "draft", "prompt", "peft_xlora")
TRAINED = ("peft_lora", "router", "router_stored_checkpointing", "peft_xlora")
IN_MEMORY = ("exact", "peft_xlora")
PARTS_WITHOUT_MIXTURES = [part for part in PARTS if part != "answers"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tiny_shape, tiny_plan):
    """The folder and records of a run of all parts; every contender is timed in test_timing.py."""
    folder = tmp_path_factory.mktemp("speed") / "run"
    with pytest.MonkeyPatch.context() as patch:
        for table, kept in ((CONTENDERS, TIMED), (TRAINING, TRAINED)):
            for name in set(table) - set(kept):
                patch.delitem(table, name)
        # Importing everything again in a server of processes takes longer than all the rest.
        patch.setattr(memory, "in_fresh_process", lambda task: task())
        patch.setattr(memory, "CONTENDERS", {name: CONTENDERS[name] for name in IN_MEMORY})
        patch.setattr(memory, "TRAINING", {"router": TRAINING["router"]})
        yield folder, run.benchmark_speed(folder, tiny_shape, repeats=2, plan=tiny_plan)


def test_every_part_is_measured_and_written(finished):
    folder, records = finished
    written = [json.loads(line) for line in (folder / "speed.jsonl").read_text().splitlines()]
    assert written == json.loads(json.dumps(records))
    assert list(dict.fromkeys(record["part"] for record in records)) == ["machine", *PARTS_WITHOUT_MIXTURES]
    for record in records:
        if "seconds" in record:
            assert len(record["seconds"]) == 2
            assert min(record["seconds"]) > 0
    assert not (folder / "models").exists()


def test_all_contenders_are_in_every_comparison(finished):
    _, records = finished

    def contenders(**about):
        wanted = about.items()
        return [one["contender"] for one in records if all(one.get(key) == value for key, value in wanted)]

    cached = [name for name, one in CONTENDERS.items() if one.has_cache and not one.compiled]
    assert contenders(part="generation") == list(CONTENDERS)
    assert contenders(part="decode", quantity="decode", batch=1) == cached
    assert contenders(part="decode", quantity="prefill", batch=2) == [
        name for name in cached if not CONTENDERS[name].top_k
    ]
    assert contenders(part="quantization", quantity="decode", quantization="nf4") == cached
    assert contenders(part="training", quantization="none") == list(TRAINING)
    assert "peft_xlora" not in contenders(part="training", quantization="int8")
    assert contenders(part="memory", work="generation") == list(IN_MEMORY)
    # One expert leaves nothing to choose.
    assert contenders(part="growth", quantity="decode", axis="experts", experts=1) == [
        "lora",
        "exact",
        "prompt",
    ]


def test_greedy_tokens_are_compared(finished):
    _, records = finished
    agreeing = {one["contender"]: one["agreeing_tokens"] for one in records if "agreeing_tokens" in one}
    assert agreeing == {"exact": 4, "draft": 4}


def test_reports_show_every_section(finished):
    folder, _ = finished
    page, text = (folder / "report.html").read_text(), (folder / "speed.md").read_text()
    headings = re.findall(r"^## (.*)$", text, flags=re.MULTILINE)
    assert len(headings) == 9
    assert all(f">{heading.replace(chr(39), '&#39;')}</h2>" in page for heading in headings)
    assert page.count('class="plotly-graph-div"') == 11
    assert "src=" not in page.split("</script>")[-1]
    for picture in ("speed.svg", "generation.svg", "training.svg"):
        assert (folder / picture).read_text().startswith("<svg ")


def test_a_run_goes_on_with_what_is_missing(tmp_path, monkeypatch, tiny_shape, tiny_plan):
    done = []

    def units(name, fails):
        def measure(bench):
            if fails and not done:
                done.append("killed")
                raise KeyboardInterrupt
            done.append(name)
            return [{"quantity": "training step", "contender": "none", "reason": name}]

        return [run.Unit(name, measure)]

    for part in ("generation", "decode"):
        monkeypatch.setitem(run.UNITS, part, lambda plan, part=part: units(part, part == "generation"))
    monkeypatch.setattr(run, "build_report", lambda folder: None)
    start = dict(repeats=1, parts=["generation", "decode"], plan=tiny_plan)
    with pytest.raises(KeyboardInterrupt):
        run.benchmark_speed(tmp_path / "r", tiny_shape, **start)
    machine = (tmp_path / "r" / "speed.jsonl").read_text()
    run.benchmark_speed(tmp_path / "r", tiny_shape, **start)
    run.benchmark_speed(tmp_path / "r", tiny_shape, **start)
    assert done == ["killed", "generation", "decode"]
    assert (tmp_path / "r" / "speed.jsonl").read_text().startswith(machine)


def test_another_configuration_needs_another_folder(finished, tiny_shape, tiny_plan):
    folder, _ = finished
    before = (folder / "speed.jsonl").read_bytes()
    with pytest.raises(FinLoraError, match=r"shape\.rank was 2, now 3"):
        run.benchmark_speed(folder, replace(tiny_shape, rank=3), repeats=2, plan=tiny_plan)
    with pytest.raises(FinLoraError, match="repeats was 2, now 3"):
        run.benchmark_speed(folder, tiny_shape, repeats=3, plan=tiny_plan)
    assert (folder / "speed.jsonl").read_bytes() == before


def test_a_strange_folder_is_left_alone(tmp_path, tiny_shape):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(FinLoraError, match="no benchmark run"):
        run.benchmark_speed(tmp_path, tiny_shape, repeats=1)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"repeats": 0}, "repeats must be at least 1"),
        ({"repeats": 1, "parts": ["prefill"]}, "No part prefill; there are generation, decode"),
        ({"repeats": 1, "parts": []}, "No part was asked for"),
        ({"repeats": 1, "shape": SpeedShape(experts=1)}, "experts must be at least 2"),
    ],
)
def test_nothing_to_measure_is_refused(asked, message, tmp_path):
    with pytest.raises(FinLoraError, match=message):
        run.benchmark_speed(tmp_path / "r", **({"shape": SpeedShape()} | asked))
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SpeedShape(layers=0), "shape.layers must be at least 1"),
        (lambda: SpeedShape(hidden_size=10, heads=4), "is no Llama"),
        (lambda: SpeedPlan(generation_new=(1,)), "one number of new tokens for each prompt"),
        (lambda: SpeedPlan(batches=(1, 0)), "plan.batches needs numbers above 0"),
    ],
)
def test_impossible_sizes_are_refused(make, message):
    with pytest.raises(FinLoraError, match=message):
        make()
