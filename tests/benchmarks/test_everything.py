"""Methods of every kind in every protocol, on a tiny base: whole runs, and what their numbers rest on."""

import csv
import dataclasses
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from finlora.benchmarks.comparison import Comparison
from finlora.benchmarks.foreign_text import TEXTS
from finlora.benchmarks.layout import RunLayout
from finlora.benchmarks.predictions import read_predictions, write_predictions
from finlora.benchmarks.protocols import PROTOCOLS
from finlora.benchmarks.reproduce import check_run
from finlora.benchmarks.results import Result, ResultIndex, read_results
from finlora.benchmarks.scope import Scope
from finlora.benchmarks.why.stored import look_at, read_look
from finlora.experts.adapter import read_expert
from finlora.experts.base_model import load_base
from finlora.experts.tasks import read_examples
from finlora.experts.tasks.suites import SUITES
from finlora.moe.checkpoint import read_mixture
from finlora.router import load_mixture

HERE = Path(__file__).parent
TASKS = ("headline", "sentiment", "finer", "xbrl_term")


@pytest.fixture(scope="module")
def toy(import_toy: Callable[[str], ModuleType]) -> Iterator[ModuleType]:
    """The toy benchmark, importable here and in its workers."""
    yield import_toy("toy_everything")
    SUITES.pop("toy", None)


@pytest.fixture(scope="module")
def run(toy: ModuleType, base_folder: str, tmp_path_factory: pytest.TempPathFactory) -> RunLayout:
    """A finished run."""
    return toy.run(base_folder, tmp_path_factory.mktemp("everything"))


@pytest.fixture(scope="module")
def index(run: RunLayout) -> ResultIndex:
    return ResultIndex(read_results(run.results))


def test_every_method_has_a_score_in_every_protocol_it_belongs_to(toy: ModuleType, index: ResultIndex):
    everywhere = ("base", "uniform", "svd", "multitask", "random_router", "arrow", "phatgoose", "xlora")
    for protocol in PROTOCOLS:
        expected = {
            "composition": (),
            "mixed_batches": everywhere,
        }.get(protocol, (*everywhere, "few_shot", "classifier", "random", *toy.LORAHUB, "oracle"))
        for method in expected:
            result = index.get(method, "macro", protocol=protocol)
            assert result.low is not None
            assert result.high is not None
            assert 0 <= result.low <= result.value <= result.high <= 100
    for name in ("multitask_rank", "multitask_category", "xlora_added"):
        assert index.find(name, "macro") is not None
        assert index.find(name, "macro", protocol="leave_one_task_out") is None


def test_what_is_left_out_is_in_nothing_that_answers(run: RunLayout):
    for task in TASKS:
        scope = run.within(Scope(without=(task,)))
        rest = [one for one in TASKS if one != task]
        mixture = read_mixture(scope.router("xlora", 0))
        assert list(mixture.experts) == rest
        trained = json.loads((scope.router("xlora", 0) / "router_training.json").read_text())
        assert set(trained["data_sha256"]) == set(rest)
        merged = read_expert(scope.part("merges/svd")).metadata or {}
        assert [source["name"] for source in merged["sources"]] == rest
        chosen = (scope.choices("classifier", 0) / f"{task}.jsonl").read_text().splitlines()
        assert {json.loads(line)["expert"] for line in chosen} <= set(rest)


def test_rules_answer_with_the_words_of_the_expert_they_chose(run: RunLayout):
    for scope in (run, run.within(Scope(asking="reworded")), run.within(Scope(without=("finer",)))):
        tasks = ("finer",) if scope.scope.without else TASKS
        for task in tasks:
            answers, _ = read_predictions(scope.cell("classifier", None, task))
            chosen = [
                json.loads(line)["expert"]
                for line in (scope.choices("classifier", 0) / f"{task}.jsonl").read_text().splitlines()
            ]
            for number, (answer, expert) in enumerate(zip(answers, chosen, strict=True)):
                stored, _ = read_predictions(scope.cell(f"expert:{expert}", None, task))
                assert stored[number] == answer


def test_answers_in_mixed_batches_are_the_same(run: RunLayout):
    for method, seed in (("base", None), ("multitask", None), ("xlora", 0)):
        for task in TASKS:
            alone, _ = read_predictions(run.cell(method, seed, task))
            mixed, _ = read_predictions(run.within(Scope(asking="mixed_batches")).cell(method, seed, task))
            assert [one.prediction for one in mixed] == [one.prediction for one in alone]


def test_protocol_scores_are_means_of_the_answers_in_their_scopes(run: RunLayout, index: ResultIndex):
    for protocol in ("leave_one_task_out", "leave_one_category_out", "reworded"):
        means = []
        for task in TASKS:
            scope = PROTOCOLS[protocol].scope_of(task, TASKS)
            predictions, _ = read_predictions(run.within(scope).cell("xlora", 0, task))
            means.append(100 * np.mean([one.score for one in predictions]))
            assert index.get("xlora", task, protocol=protocol).value == pytest.approx(means[-1])
        assert index.get("xlora", "macro", protocol=protocol).value == pytest.approx(np.mean(means))


def test_the_oracle_of_a_protocol_is_the_right_expert_asked_that_way(run: RunLayout, index: ResultIndex):
    predictions, _ = read_predictions(
        run.within(Scope(asking="reworded")).cell("expert:finer", None, "finer")
    )
    right = 100 * np.mean([one.score for one in predictions])
    assert index.get("oracle", "finer", protocol="reworded").value == pytest.approx(right)
    left_out = index.get("oracle", "finer", protocol="leave_one_task_out")
    assert left_out.value == index.get("oracle", "finer").value


def test_text_of_no_task_is_read_by_every_one_model_method(run: RunLayout, index: ResultIndex):
    base = index.get("base", "foreign_text", "loss")
    assert base.n == len(TEXTS)
    for method in ("uniform", "multitask", "svd", "arrow", "xlora", "xlora_null"):
        loss = index.get(method, "foreign_text", "loss").value
        difference = index.get(method, "foreign_text", "loss_difference:base")
        assert difference.value == pytest.approx(loss - base.value)
    assert index.find("lorahub", "foreign_text", "loss") is None
    assert index.find("xlora", "foreign_text", "abstention") is None
    for metric in ("abstention", "abstention_on_tasks"):
        assert 0 < index.get("xlora_null", "foreign_text", metric).value < 100
    assert "Text that belongs to no task" in run.report_html.read_text(encoding="utf-8")


def test_p_values_are_corrected_over_methods_and_over_tasks(index: ResultIndex):
    found = {task: index.get("xlora", task, "difference:base") for task in (*TASKS, "macro")}
    for result in found.values():
        assert result.p_value is not None
        assert result.p_adjusted is not None
        assert result.p_value <= result.p_adjusted <= 1
    smallest = min(TASKS, key=lambda task: found[task].p_value or 0)
    assert found[smallest].p_adjusted == pytest.approx(min(1, 4 * (found[smallest].p_value or 0)))


def test_the_table_holds_the_same_numbers_as_the_records(run: RunLayout):
    with run.results_csv.open(newline="") as file:
        rows = list(csv.DictReader(file))
    results = read_results(run.results)
    assert [(row["method"], row["metric"], float(row["value"])) for row in rows] == [
        (one.method, one.metric, one.value) for one in results
    ]


def test_the_report_has_a_part_for_each_protocol(run: RunLayout):
    html, markdown = (path.read_text(encoding="utf-8") for path in (run.report_html, run.report_markdown))
    for name, protocol in PROTOCOLS.items():
        if name not in ("in_distribution", "composition"):
            assert f'id="plot-protocol-{name}"' in html
            assert f"## {protocol.title}" in markdown
    for name in ("frontier", "agreement", "entropy", "tokens-finer", "similarity-cosine"):
        assert f'id="plot-{name}"' in html
    assert "Where X-LoRA and the right expert differ" in html


def test_what_was_seen_of_the_router_is_read_as_it_was_written(run: RunLayout, base_folder: str):
    look = read_look(run.router_look)
    assert look is not None
    mixture = load_mixture(run.mixture, base=load_base(base_folder, "nf4"))
    asked = {task: read_examples(run.examples(task, "test"))[:2] for task in TASKS}
    again = look_at(mixture, asked)
    assert look.experts == again.experts == TASKS
    for task in TASKS:
        stored, fresh = look.questions[task], again.questions[task]
        assert stored.tokens == fresh.tokens
        torch.testing.assert_close(stored.scalings, fresh.scalings, rtol=0, atol=6e-5)
        assert torch.equal(stored.predicts_answer, fresh.predicts_answer)
    for stored, fresh in zip(look.routing, again.routing, strict=True):
        assert stored.mean_entropy == pytest.approx(fresh.mean_entropy, abs=1e-4)


def test_a_second_run_gives_the_same_numbers_to_the_last_digit(
    toy: ModuleType, base_folder: str, run: RunLayout, tmp_path: Path
):
    budget = toy.small(protocols=("in_distribution", "leave_one_task_out"))
    again = toy.run(base_folder, tmp_path, workers=1, budget=budget)

    def numbers(layout: RunLayout) -> dict[object, tuple[float, float | None, float | None, float | None]]:
        return {
            (one.method, one.task, one.metric, one.seed, one.protocol): (
                one.value,
                one.low,
                one.high,
                one.p_adjusted,
            )
            for one in read_results(layout.results)
            if one.low is not None and one.protocol in budget.protocols
        }

    assert numbers(again) == numbers(run)
    assert len(numbers(again)) > 200


def test_a_further_expert_seed_counts_in_every_method_on_experts(
    toy: ModuleType, base_folder: str, tmp_path: Path
):
    budget = toy.small(further=("classifier",), protocols=("in_distribution",))
    two = toy.run(
        base_folder,
        tmp_path,
        comparison=Comparison(more_expert_seeds=(5,)),
        router_seeds=(0, 1),
        budget=budget,
    )
    second = two.within(Scope(expert_seed=5))
    index = ResultIndex(read_results(two.results))

    def mean(method: str, seeds: tuple[int | None, ...], scopes: tuple[RunLayout, ...]) -> float:
        return float(
            np.mean(
                [
                    100 * one.score
                    for task in TASKS
                    for scope in scopes
                    for seed in seeds
                    for one in read_predictions(scope.cell(method, seed, task))[0]
                ]
            )
        )

    assert index.get("xlora", "macro").value == pytest.approx(mean("xlora", (0, 1), (two, second)))
    assert index.get("classifier", "macro").value == pytest.approx(mean("classifier", (None,), (two, second)))
    assert index.get("base", "macro").value == pytest.approx(mean("base", (None,), (two,)))
    assert (second.expert("finer") / "adapter_model.safetensors").read_bytes() != (
        two.expert("finer") / "adapter_model.safetensors"
    ).read_bytes()
    seeds: list[Result] = [
        one for one in read_results(two.results) if one.method == "xlora" and one.seed == 0
    ]
    assert {one.task for one in seeds} == {*TASKS, "macro"}


def test_a_run_can_be_checked_and_a_changed_number_or_answer_is_found(run: RunLayout, tmp_path: Path):
    copy = RunLayout(tmp_path / "copy")
    shutil.copytree(run.folder, copy.folder)
    check = check_run(copy.folder, cells=4)
    assert check.passed
    assert check.answers == 24
    assert "all equal to the last digit" in str(check)
    names: list[str] = []
    check_run(copy.folder, cells=1, progress=names.append)
    path = copy.folder / f"{names[0]}.jsonl"
    predictions, summary = read_predictions(path)
    wrong = dataclasses.replace(predictions[0], prediction="forged", score=1.0 - predictions[0].score)
    write_predictions(path, [wrong, *predictions[1:]], summary)
    forged = check_run(copy.folder, cells=1)
    assert not forged.passed
    assert forged.different
    assert forged.changed == {names[0]: 1}
    assert f"1 differ, in {names[0]}" in str(forged)
