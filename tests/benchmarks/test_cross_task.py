"""The whole benchmark on a tiny base: what it leaves, how it resumes, and what it refuses."""

import dataclasses
import itertools
import json
import time
from collections.abc import Callable, Sized
from importlib.util import find_spec
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import ModuleType

import filelock
import numpy as np
import psutil
import pytest

from finlora.benchmarks.demo import describe
from finlora.benchmarks.findings import with_interval
from finlora.benchmarks.layout import RunLayout
from finlora.benchmarks.pair import compare_pair
from finlora.benchmarks.predictions import read_predictions
from finlora.benchmarks.results import Result, ResultIndex, read_results
from finlora.experts.base_model import load_base
from finlora.experts.errors import FinLoraError
from finlora.router import load_mixture

HERE = Path(__file__).parent
TASKS = ("headline", "sentiment")


@pytest.fixture(scope="module")
def unbroken(toy: ModuleType, base_folder: str, tmp_path_factory: pytest.TempPathFactory) -> RunLayout:
    """A benchmark that ran without a break."""
    return toy.run(base_folder, tmp_path_factory.mktemp("unbroken"))


def test_every_method_answers_every_task(unbroken: RunLayout):
    index = ResultIndex(read_results(unbroken.results))
    methods = ("base", "expert:headline", "expert:sentiment", "uniform", "multitask", "xlora", "oracle")
    for method in methods:
        for task in (*TASKS, "macro"):
            result = index.get(method, task)
            assert result.low is not None
            assert result.high is not None
            assert 0 <= result.low <= result.value <= result.high <= 100
    for seed in (0, 1):
        assert index.get("xlora", "macro", seed=seed).n == 12
    assert index.get("oracle", "macro").value > index.get("base", "macro").value


def test_numbers_follow_from_the_stored_answers(unbroken: RunLayout):
    index = ResultIndex(read_results(unbroken.results))
    predictions, summary = read_predictions(unbroken.cell("expert:headline", None, "headline"))
    assert [one.target for one in predictions].count("Yes") > 3
    recomputed = 100 * np.mean([one.prediction == one.target for one in predictions])
    assert index.get("expert:headline", "headline").value == pytest.approx(recomputed) == summary.score
    assert summary.n == 6
    assert summary.peak_bytes > 2**20
    assert summary.answer_tokens >= 6


def test_any_two_methods_are_compared_as_the_report_compares(unbroken: RunLayout):
    index = ResultIndex(read_results(unbroken.results))
    rows = {row[0]: row for row in compare_pair(unbroken, "xlora", "multitask").rows}
    for task in (*TASKS, "macro", "categories"):
        stored = index.get("xlora", task, "difference:multitask")
        assert rows[task][1] == with_interval(index.get("xlora", task))
        assert rows[task][2] == with_interval(index.get("multitask", task))
        assert rows[task][3] == with_interval(stored, signed=True)
    turned = {row[0]: row for row in compare_pair(unbroken, "multitask", "xlora").rows}
    for task, row in rows.items():
        value, expected = float(turned[task][3].split()[0]), float(row[3].split()[0])
        assert value == pytest.approx(-expected)
    with pytest.raises(FinLoraError, match="no protocol 'reworded'; it has in_distribution"):
        compare_pair(unbroken, "xlora", "oracle", "reworded")
    with pytest.raises(FinLoraError, match=r"'ties' was not asked .* asked were base, "):
        compare_pair(unbroken, "xlora", "ties")


def test_the_multi_task_adapter_is_as_large_and_as_long_as_all_experts(unbroken: RunLayout):
    index = ResultIndex(read_results(unbroken.results))
    size = {
        method: index.get(method, "macro", "trainable_parameters").value
        for method in ("expert:headline", "expert:sentiment", "multitask", "uniform", "xlora")
    }
    assert size["multitask"] == size["expert:headline"] + size["expert:sentiment"] == size["uniform"]
    # One linear layer from 64 features to two experts, with biases.
    assert size["xlora"] == size["uniform"] + 64 * 2 + 2
    steps = {
        name: json.loads((unbroken.folder / name / "expert.json").read_text())["losses"][-1]["step"]
        for name in ("experts/headline", "experts/sentiment", "multitask")
    }
    assert steps["multitask"] == steps["experts/headline"] + steps["experts/sentiment"]
    for method in ("multitask", "oracle", "xlora"):
        assert index.get(method, "macro", "training_seconds").value > 0


def test_the_routing_map_has_weights_that_sum_to_one(unbroken: RunLayout):
    routing = json.loads(unbroken.routing.read_text())
    assert routing["experts"] == list(TASKS)
    for seed in ("0", "1"):
        for tokens in ("prompt", "answer"):
            for task in TASKS:
                assert sum(routing["seeds"][seed][tokens][task]) == pytest.approx(1, abs=1e-4)


def test_the_run_leaves_a_mixture_and_a_report(unbroken: RunLayout, base_folder: str):
    base = load_base(base_folder, "nf4")
    mixture = load_mixture(unbroken.mixture, base=base)
    assert mixture.bank.expert_names == TASKS
    text = describe(unbroken)
    assert "X-LoRA scores" in text
    assert text.endswith(str(unbroken.report_html))
    assert "X-LoRA" in unbroken.report_html.read_text(encoding="utf-8")
    assert not unbroken.hidden_states.exists()


def test_a_finished_run_is_only_reported_again(toy: ModuleType, base_folder: str, unbroken: RunLayout):
    cells = {path: path.stat().st_mtime_ns for path in unbroken.folder.rglob("cells/**/*.jsonl")}
    numbers = toy.scores(unbroken)
    unbroken.report_html.unlink()
    start = time.monotonic()
    toy.run(base_folder, unbroken.folder.parent)
    assert time.monotonic() - start < 20
    assert unbroken.report_html.exists()
    assert {path: path.stat().st_mtime_ns for path in cells} == cells
    assert toy.scores(unbroken) == numbers


def test_kill_9_in_training_and_the_same_numbers_come_out(
    toy: ModuleType, base_folder: str, unbroken: RunLayout, tmp_path: Path
):
    layout = RunLayout(tmp_path / "toy")
    # A fork has all libraries loaded already; its workers are started like those of any other run.
    run = get_context("fork").Process(target=toy.run, args=(base_folder, tmp_path))
    run.start()
    wait_for(lambda: list(layout.folder.glob("routers/*/*/training/checkpoint-*")), run)
    workers = psutil.Process(run.pid).children(recursive=True)
    run.kill()
    run.join()
    _, alive = psutil.wait_procs(workers, timeout=10)
    assert not alive
    assert layout.expert("sentiment").exists()
    assert not layout.results.exists(), "the run was over before it could be killed"
    toy.run(base_folder, tmp_path)
    assert toy.scores(layout) == toy.scores(unbroken)
    for name in ("experts/headline", "experts/sentiment", "multitask"):
        file = Path(name) / "adapter_model.safetensors"
        assert (layout.folder / file).read_bytes() == (unbroken.folder / file).read_bytes()
    for method, seed in itertools.product(("xlora", "xlora_token"), (0, 1)):
        routers = [run.router(method, seed) / "router.safetensors" for run in (layout, unbroken)]
        assert routers[0].read_bytes() == routers[1].read_bytes()


@pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed: pip install -e .[ray]")
def test_ray_workers_find_the_same_numbers(
    toy: ModuleType, base_folder: str, unbroken: RunLayout, tmp_path: Path
):
    layout = toy.run(base_folder, tmp_path, ray="local")
    assert len(list(layout.logs.iterdir())) == 2
    assert [without_costs(one) for one in read_results(layout.results)] == [
        without_costs(one) for one in read_results(unbroken.results)
    ]
    trained = sorted(path.relative_to(unbroken.folder) for path in unbroken.folder.rglob("*.safetensors"))
    assert len(trained) > 6
    for file in trained:
        assert (layout.folder / file).read_bytes() == (unbroken.folder / file).read_bytes()


def without_costs(result: Result) -> Result:
    """A result without what depends on the clock and on the state of the source tree."""
    measured = result.metric in {"tokens_per_second", "answer_peak_bytes"} or "training_" in result.metric
    value = 0.0 if measured else result.value
    return dataclasses.replace(result, value=value, seconds=None, peak_bytes=None, commit="")


def wait_for(condition: Callable[[], Sized], run: BaseProcess) -> None:
    end = time.monotonic() + 180
    while not condition():
        assert run.is_alive(), "the run ended before it reached this stage"
        assert time.monotonic() < end, "the run never reached this stage"
        time.sleep(0.005)


def test_another_configuration_is_never_mixed_in(toy: ModuleType, base_folder: str, unbroken: RunLayout):
    before = unbroken.config.read_bytes()
    budget = dataclasses.replace(toy.BUDGET, test_examples=4)
    with pytest.raises(FinLoraError, match=r"budget\.test_examples was 6, now 4.*choose another --name"):
        toy.run(base_folder, unbroken.folder.parent, budget=budget)
    with pytest.raises(FinLoraError, match=r"quantization was 'nf4', now 'none'"):
        toy.run(base_folder, unbroken.folder.parent, quantization="none")
    assert unbroken.config.read_bytes() == before


def test_a_folder_that_is_no_run_is_left_alone(toy: ModuleType, base_folder: str, tmp_path: Path):
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / "thesis.txt").write_text("precious")
    with pytest.raises(FinLoraError, match=r"is no benchmark run \(it holds thesis\.txt\)"):
        toy.run(base_folder, tmp_path)
    assert (tmp_path / "toy" / "thesis.txt").read_text() == "precious"


def test_two_processes_do_not_work_on_one_run(toy: ModuleType, base_folder: str, tmp_path: Path):
    layout = RunLayout(tmp_path / "toy")
    layout.folder.mkdir()
    with (
        filelock.FileLock(layout.lock, is_singleton=False),
        pytest.raises(FinLoraError, match="Another process works on"),
    ):
        toy.run(base_folder, tmp_path)


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"tasks": ("headline", "nonsense")}, "nonsense"),
        ({"tasks": ("headline",)}, "at least two different tasks"),
        ({"router_seeds": ()}, "at least one router seed"),
        ({"quantization": "int3"}, "int3"),
    ],
)
def test_nonsense_is_refused_before_anything_is_written(
    toy: ModuleType, base_folder: str, tmp_path: Path, changes: dict[str, object], fault: str
):
    with pytest.raises(FinLoraError, match=fault):
        toy.run(base_folder, tmp_path, **changes)
    assert list(tmp_path.iterdir()) == []
