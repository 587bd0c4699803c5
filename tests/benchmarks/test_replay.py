"""Rules replayed from stored answers: the same as asking the chosen experts, and what that is worth."""

import dataclasses
import json
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from finlora.benchmarks.evaluate import count_parameters, evaluate_model
from finlora.benchmarks.layout import RunLayout
from finlora.benchmarks.models import open_adapter, open_uniform
from finlora.benchmarks.predictions import Summary, read_predictions, write_predictions
from finlora.benchmarks.replay import StoredAnswers, best_by_item, replay, replayed_cell
from finlora.benchmarks.replay_rule import RULES, replay_rule
from finlora.benchmarks.results import Result, ResultIndex, read_results
from finlora.benchmarks.selection import draw_prompts, read_choices, select, write_choices
from finlora.benchmarks.statistics import Bootstrap
from finlora.experts.answering import answer
from finlora.experts.base_model import Base, load_base
from finlora.experts.errors import FinLoraError
from finlora.experts.provenance import examples_sha256
from finlora.experts.tasks import Example, get_task, write_examples
from finlora.moe import cli
from finlora.moe.commands import benchmarking
from finlora.router.selectors import Choice, RandomSelector

TASKS = ("xbrl_tags", "xbrl_value", "finer", "headline")
TOY_TASKS = ("headline", "sentiment")
ITEMS = 60


def questions(task: str, split: str, count: int) -> list[Example]:
    """Questions that name their task, three to a group."""
    return [
        Example(f"{task} {split} question {number}?", "a", f"{split} {number // 3}")
        for number in range(count)
    ]


@pytest.fixture
def run(invented_run: RunLayout) -> RunLayout:
    """The invented run, with the questions that its experts answered, and numbers of prompts."""
    for task in TASKS:
        for split in ("train", "test"):
            write_examples(invented_run.examples(task, split), questions(task, split, ITEMS))
    for path in (invented_run.folder / "cells").rglob("*.jsonl"):
        predictions, summary = read_predictions(path)
        digest = examples_sha256(questions(path.stem, "test", ITEMS))
        write_predictions(path, predictions, dataclasses.replace(summary, examples_sha256=digest))
    config = json.loads(invented_run.config.read_text())
    config["budget"]["router_examples"] = 9
    invented_run.config.write_text(json.dumps(config))
    return invented_run


@pytest.fixture
def toy_base(base_folder: str) -> Base:
    return load_base(base_folder, "none")


@pytest.fixture
def toy_run(toy_base: Base, tmp_path: Path) -> RunLayout:
    """A run of two random experts that really answered."""
    layout = RunLayout(tmp_path / "toy")
    for seed, task in enumerate(TOY_TASKS):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_pretrained(toy_base.name)
        config = LoraConfig(
            r=4, task_type="CAUSAL_LM", target_modules=["q_proj", "up_proj"], init_lora_weights=False
        )
        get_peft_model(model, config).save_pretrained(layout.expert(task))
        for split in ("train", "test"):
            write_examples(layout.examples(task, split), questions(task, split, 5))
    for expert in TOY_TASKS:
        with open_adapter(layout.expert(expert), toy_base) as model:
            for task in TOY_TASKS:
                cell = evaluate_model(
                    model, toy_base, get_task(task), questions(task, "test", 5), label=f"expert:{expert}"
                )
                write_predictions(layout.cell(f"expert:{expert}", None, task), *cell)
    return layout


def test_replayed_answers_are_those_that_the_chosen_experts_give(toy_run: RunLayout, toy_base: Base) -> None:
    answers = StoredAnswers.read(toy_run, TOY_TASKS)
    selection = select(answers, RandomSelector(1), experts=TOY_TASKS, prompts=3, seed=0)
    replayed = replay(answers, selection.choices)
    for task in TOY_TASKS:
        cells = answers.cells[task]
        assert {choice.expert for choice in selection.choices[task]} == set(TOY_TASKS)
        assert all(
            one.prediction != other.prediction
            for one, other in zip(*(cells[expert].predictions for expert in TOY_TASKS), strict=True)
        )
        for number, choice in enumerate(selection.choices[task]):
            with open_adapter(toy_run.expert(choice.expert), toy_base) as model:
                [text] = answer(
                    model,
                    toy_base.tokenizer,
                    [questions(task, "test", 5)[number].context],
                    max_new_tokens=get_task(task).max_new_tokens,
                ).texts
            assert replayed[task][number].prediction == text


def test_a_cell_of_a_rule_says_what_its_answers_cost(toy_run: RunLayout, toy_base: Base) -> None:
    answers = StoredAnswers.read(toy_run, TOY_TASKS)
    own = answers.cells["headline"]["sentiment"]
    chosen = [Choice("sentiment", 1.0)] * 5
    predictions, summary = replayed_cell(
        answers, "headline", chosen, toy_base, label="rule:0", experts=TOY_TASKS, seconds=2.0
    )
    assert predictions == own.predictions
    with open_uniform({task: toy_run.expert(task) for task in TOY_TASKS}, toy_base) as both:
        assert summary.parameters == count_parameters(both)
    assert summary.seconds == pytest.approx(own.summary.seconds + 2.0)
    assert summary.tokens_per_second == pytest.approx(own.summary.answer_tokens / summary.seconds)
    same = [field.name for field in dataclasses.fields(Summary)]
    for name in ("model", "parameters", "seconds", "tokens_per_second", "commit"):
        same.remove(name)
    for name in same:
        assert getattr(summary, name) == getattr(own.summary, name), name
    path = toy_run.cell("rule", 0, "headline")
    write_predictions(path, predictions, summary)
    assert read_predictions(path) == (predictions, summary)


def test_the_oracle_has_the_scores_of_the_right_experts(run: RunLayout) -> None:
    cells = {task: read_predictions(run.cell(f"expert:{task}", None, task))[0] for task in TASKS}
    scores = {task: np.array([[100 * one.score for one in cell]]) for task, cell in cells.items()}
    groups = {task: [one.group for one in cell] for task, cell in cells.items()}
    expected = Bootstrap({"right": scores}, groups, resamples=500, seed=0)
    index = ResultIndex(replay_rule(run, "oracle").results)
    for task in (*TASKS, "macro"):
        result, interval = index.get("oracle", task), expected.score("right", task)
        assert (result.value, result.low, result.high) == (interval.value, interval.low, interval.high)
        assert index.get("oracle", task, "regret:oracle").value == 0
        assert index.get("oracle", task, "right_expert").value == 100
    assert index.get("oracle", "macro").n == len(TASKS) * ITEMS


@pytest.mark.parametrize("rule", ["tfidf_retrieval", "tfidf_classifier"])
def test_a_rule_that_knows_the_task_scores_as_the_oracle(run: RunLayout, rule: str) -> None:
    before = {path: path.read_bytes() for path in run.folder.rglob("*") if path.is_file()}
    replayed = replay_rule(run, rule, seed=3)
    oracle = ResultIndex(replay_rule(run, "oracle").results)
    index = ResultIndex(replayed.results)
    for task in (*TASKS, "macro"):
        assert index.get(rule, task, seed=3).value == oracle.get("oracle", task).value
        assert index.get(rule, task, "right_expert", seed=3).value == 100
    folder = run.folder / "choices" / rule / "3"
    assert read_choices(folder, TASKS) == replayed.selection.choices
    assert read_results(folder / "results.jsonl") == replayed.results
    assert {path: path.read_bytes() for path in before} == before
    rows = replayed.table().rows
    assert [row[0] for row in rows] == [*TASKS, "macro"]
    assert rows[2][-1] == "finer 100 %"


def test_regret_is_what_the_oracle_scores_more(run: RunLayout) -> None:
    index = ResultIndex(replay_rule(run, "random", seed=0).results)
    oracle, best = (ResultIndex(replay_rule(run, rule).results) for rule in ("oracle", "best_by_item"))
    for task in (*TASKS, "macro"):
        score = index.get("random", task, seed=0).value
        for name, reference in (("oracle", oracle), ("best_by_item", best)):
            regret = index.get("random", task, f"regret:{name}", seed=0).value
            assert regret == pytest.approx(reference.get(name, task).value - score)
    assert index.get("random", "macro", "regret:oracle", seed=0).low > 10
    assert 5 < index.get("random", "macro", "right_expert", seed=0).value < 50


def test_best_by_item_is_the_best_that_any_choice_can_score(run: RunLayout) -> None:
    answers = StoredAnswers.read(run, TASKS)
    for experts in (TASKS, ("finer", "headline")):
        best = best_by_item(answers, experts)
        for task in TASKS:
            scores = np.array(
                [[one.score for one in answers.cells[task][expert].predictions] for expert in experts]
            )
            assert [one.score for one in replay(answers, best)[task]] == scores.max(axis=0).tolist()
            right = scores[list(experts).index(task)] if task in experts else np.zeros(ITEMS)
            for choice, score in zip(best[task], right, strict=True):
                assert choice.expert in experts
                assert score == 0 or choice.expert == task


def test_without_an_expert_the_others_answer_its_questions(run: RunLayout) -> None:
    replayed = replay_rule(run, "tfidf_classifier", without=["finer"])
    index = ResultIndex(replayed.results)
    chosen = {choice.expert for choices in replayed.selection.choices.values() for choice in choices}
    assert chosen == {"xbrl_tags", "xbrl_value", "headline"}
    assert index.find("tfidf_classifier", "finer", "right_expert", seed=0) is None
    assert index.get("tfidf_classifier", "macro", "right_expert", seed=0).value == 100
    assert index.get("tfidf_classifier", "finer", "regret:oracle", seed=0).value > 20
    assert (run.folder / "choices" / "tfidf_classifier" / "0" / "without+finer" / "finer.jsonl").is_file()
    assert not (run.folder / "choices" / "tfidf_classifier" / "0" / "finer.jsonl").exists()
    assert replayed.table().rows[2][4] == "-"


def test_the_base_is_not_loaded_for_counts_of_words(run: RunLayout) -> None:
    config = json.loads(run.config.read_text())
    run.config.write_text(json.dumps(config | {"base": "./no-such-base"}))
    replay_rule(run, "tfidf_retrieval")
    with pytest.raises(FinLoraError, match="no-such-base"):
        replay_rule(run, "retrieval")


def test_training_prompts_are_different_ones_drawn_by_the_seed() -> None:
    examples = [*questions("finer", "train", 30), *questions("finer", "train", 30)]
    drawn = draw_prompts(examples, 10, 0)
    assert len(set(drawn)) == 10
    assert drawn == draw_prompts(examples, 10, 0) != draw_prompts(examples, 10, 1)
    assert sorted(draw_prompts(examples, 99, 0)) == sorted({example.context for example in examples})


@pytest.mark.parametrize(
    ("rule", "changes", "fault"),
    [
        ("best", {}, "No rule 'best'; choose one of retrieval"),
        ("random", {"without": ["fpb"]}, "no expert 'fpb'; it has xbrl_tags"),
        ("random", {"without": TASKS[1:]}, "but xbrl_tags is left"),
        ("oracle", {"without": ["finer"]}, "leave out --without"),
        ("random", {"prompts": 0}, "1 or more prompts of each expert, got 0"),
        ("tfidf_classifier", {"prompts": 1}, "needs 2 or more"),
    ],
)
def test_what_no_rule_can_do_is_refused(
    run: RunLayout, rule: str, changes: dict[str, object], fault: str
) -> None:
    with pytest.raises(FinLoraError, match=fault):
        replay_rule(run, rule, **changes)  # pyright: ignore
    assert not (run.folder / "choices").exists()


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"examples_sha256": "other"}, "answered different questions of headline"),
        ({"base_revision": "other"}, "answered on different bases"),
    ],
)
def test_answers_that_cannot_stand_for_each_other_are_refused(
    run: RunLayout, change: dict[str, str], fault: str
) -> None:
    path = run.cell("expert:finer", None, "headline")
    predictions, summary = read_predictions(path)
    write_predictions(path, predictions, dataclasses.replace(summary, **change))  # pyright: ignore
    with pytest.raises(FinLoraError, match=fault):
        replay_rule(run, "oracle")


def test_other_questions_than_those_answered_are_refused(run: RunLayout) -> None:
    write_examples(run.examples("finer", "test"), questions("finer", "train", ITEMS))
    with pytest.raises(FinLoraError, match=r"test\.jsonl is not what the experts answered"):
        replay_rule(run, "tfidf_retrieval")


def test_choices_that_do_not_fit_the_answers_are_refused(run: RunLayout) -> None:
    answers = StoredAnswers.read(run, TASKS)
    with pytest.raises(FinLoraError, match="finer has 60 test questions, but 59 choices"):
        replay(answers, {"finer": [Choice("finer", 1.0)] * 59})
    with pytest.raises(FinLoraError, match="no expert 'fpb'"):
        replay(answers, {"finer": [Choice("fpb", 1.0)] * 60})
    with pytest.raises(FinLoraError, match="no task 'fpb'"):
        replay(answers, {"fpb": [Choice("finer", 1.0)] * 60})


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    for content in (None, "{", "[]", '{"shape": {}}'):
        if content is not None:
            (tmp_path / "config.json").write_text(content)
        with pytest.raises(FinLoraError, match="is no run of the cross-task benchmark"):
            replay_rule(RunLayout(tmp_path), "oracle")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('{"question": 1, "expert": "finer", "confidence": 1}\n', "has question 1 where question 0 belongs"),
        ('{"question": 0, "expert": "finer"}\n', "record 1: question, expert and confidence are needed"),
        ('{"question": 0, "expert": 3, "confidence": 1}\n', "record 1"),
    ],
)
def test_malformed_choices_are_refused(tmp_path: Path, text: str, fault: str) -> None:
    write_choices(tmp_path, {"finer": [Choice("finer", 0.5)]})
    assert read_choices(tmp_path, ["finer"]) == {"finer": [Choice("finer", 0.5)]}
    (tmp_path / "finer.jsonl").write_text(text)
    with pytest.raises(FinLoraError, match=fault):
        read_choices(tmp_path, ["finer"])


def test_the_command_prints_a_row_for_each_task(run: RunLayout, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["replay", str(run.folder), "--rule", "tfidf_retrieval", "--without", "finer", "headline"]
    assert cli.main([*line, "--seed", "2", "--prompts", "5"]) == 0
    shown = capsys.readouterr().out
    lines = shown.splitlines()
    assert [text.split("|")[1].strip() for text in lines[2:-1]] == [*TASKS, "macro"]
    assert "choices/tfidf_retrieval/2/without+finer+headline" in lines[-1]
    assert cli.main(["replay", str(run.folder / "data"), "--rule", "oracle"]) == 2
    assert "is no run of the cross-task benchmark" in capsys.readouterr().err


def test_every_rule_is_a_choice_of_the_command() -> None:
    assert get_args(benchmarking.Rule) == RULES


def test_a_result_of_a_rule_without_a_seed_has_none(run: RunLayout) -> None:
    results: list[Result] = replay_rule(run, "best_by_item", seed=5).results
    assert {one.seed for one in results} == {None}
