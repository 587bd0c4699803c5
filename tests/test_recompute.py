"""The stand-alone re-computation of scores agrees with an invented run, and not with a changed one."""

import importlib.util
import json
import statistics
import subprocess
import sys
from collections.abc import Callable
from itertools import product
from math import ceil
from pathlib import Path

import pytest

from finlora.benchmarks.statistics import extreme_bound
from finlora.experts.tasks import get_task
from finlora.experts.tasks.suites import SUITES

SCRIPT = Path(__file__).parent.parent / "docs" / "results" / "recompute.py"
_spec = importlib.util.spec_from_file_location("recompute", SCRIPT)
assert _spec is not None
assert _spec.loader is not None
recompute = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(recompute)

GROUPS = ("one", "one", "", "")
CLUSTERS = ((0, 1), (2,), (3,))
"""Items of each cluster, as the groups say."""
TARGETS = {"xbrl_formula": "(us-gaap:Assets / us-gaap:Cash) * 100", "finer": "Assets,Cash"}
ANSWERS = {
    "xbrl_formula": {1.0: "100 * Assets / Cash", 0.0: "us-gaap:Assets / us-gaap:Cash"},
    "finer": {1.0: "us-gaap:Assets, Cash", 0.5: "Assets", 0.0: "Cash,Assets"},
}
"""An answer of every score."""
SCORES = {
    "base": {None: {"xbrl_formula": (0.0, 0.0, 0.0, 0.0), "finer": (0.5, 0.0, 0.0, 0.0)}},
    "oracle": {None: {"xbrl_formula": (1.0, 1.0, 0.0, 1.0), "finer": (1.0, 1.0, 1.0, 1.0)}},
    "xlora": {
        0: {"xbrl_formula": (1.0, 0.0, 1.0, 1.0), "finer": (0.5, 1.0, 0.0, 1.0)},
        1: {"xbrl_formula": (1.0, 0.0, 0.0, 1.0), "finer": (0.0, 0.5, 0.0, 0.5)},
    },
}
"""By method, router seed and task."""
TASKS = tuple(TARGETS)


def exact_interval(
    by_seed: list[dict[str, tuple[float, ...]]], tasks: tuple[str, ...]
) -> tuple[float, float]:
    """Percentiles over all draws of clusters and seeds that there are, each as likely as any other."""
    if {score for scores in by_seed for task in tasks for score in scores[task]} in ({0.0}, {1.0}):
        reach = 100 * (1 - 0.025 ** (1 / len(CLUSTERS)))
        return (0.0, reach) if by_seed[0][tasks[0]][0] == 0 else (100 - reach, 100.0)
    draws = []
    for seeds in product(by_seed, repeat=len(by_seed)):
        for drawn in product(product(CLUSTERS, repeat=len(CLUSTERS)), repeat=len(tasks)):
            means = [
                statistics.fmean(scores[task][item] for cluster in clusters for item in cluster)
                for task, clusters in zip(tasks, drawn, strict=True)
                for scores in seeds
            ]
            draws.append(100 * statistics.fmean(means))
    beyond = ceil(len(draws) * 0.025) - 1
    return sorted(draws)[beyond], sorted(draws)[-1 - beyond]


def record(method: str, seed: int | None, task: str) -> dict:
    """The stored number of an invented run."""
    by_seed = [SCORES[method][seed]] if seed in SCORES[method] else list(SCORES[method].values())
    tasks = TASKS if task == "macro" else (task,)
    value = statistics.fmean(score for scores in by_seed for one in tasks for score in scores[one])
    low, high = exact_interval(by_seed, tasks)
    number = {"value": 100 * value, "low": low, "high": high}
    return {"method": method, "seed": seed, "task": task, "metric": "score", **number}


def write_lines(path: Path, records: list[dict]) -> None:
    """Write a JSONL file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(one) + "\n" for one in records), encoding="utf-8")


def write_run(folder: Path) -> Path:
    """An invented run whose scores and intervals are known."""
    (folder / "config.json").write_text(json.dumps({"tasks": TASKS, "resamples": 10_000}), encoding="utf-8")
    records = []
    for method, by_seed in SCORES.items():
        for seed, scores in by_seed.items():
            for task in TASKS:
                answers = [
                    {
                        "prediction": ANSWERS[task][score],
                        "target": TARGETS[task],
                        "score": score,
                        "group": group,
                    }
                    for score, group in zip(scores[task], GROUPS, strict=True)
                ]
                home = folder / "cells" / (f"expert/{task}" if method == "oracle" else method)
                path = home / ("" if seed is None else str(seed)) / f"{task}.jsonl"
                write_lines(path, [*answers, {"summary": {"task": task}}])
        records += [record(method, seed, task) for seed in {None, *by_seed} for task in (*TASKS, "macro")]
    write_lines(folder / "results.jsonl", records)
    return folder


def run_script(run: Path) -> tuple[int, list[str]]:
    """Exit status and lines of the script, which sees no installed package."""
    command = [sys.executable, "-I", "-S", str(SCRIPT), str(run), "--methods", "base", "xlora", "oracle"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert not done.stderr
    return done.returncode, done.stdout.splitlines()


def test_the_script_agrees_with_a_run_whose_numbers_are_known(tmp_path: Path):
    status, lines = run_script(write_run(tmp_path))
    assert (status, lines[-1]) == (0, "agrees"), "\n".join(lines)
    assert "answers: 32, of which 0 are stored with another score" in lines
    assert sum("   stored " in line for line in lines) == 15


def another_mean(one: dict) -> dict:
    """A stored mean that is off by little."""
    return one | {"value": one["value"] + 1e-6}


def another_low_end(one: dict) -> dict:
    """A stored interval that is too wide."""
    return one | {"low": 0.0}


@pytest.mark.parametrize(
    ("change", "verdict"),
    [(another_mean, "ANOTHER MEAN"), (another_low_end, "ANOTHER INTERVAL"), (lambda one: {}, "NOT STORED")],
)
def test_the_script_finds_a_changed_number(tmp_path: Path, change: Callable[[dict], dict], verdict: str):
    path = write_run(tmp_path) / "results.jsonl"
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    chosen = record("xlora", None, "macro")
    changed = [change(one) if one == chosen else one for one in records]
    assert changed != records
    write_lines(path, [one for one in changed if one])
    status, lines = run_script(tmp_path)
    assert (status, lines[-1]) == (1, "does not agree")
    assert next(line for line in lines if line.endswith(verdict)).split()[:2] == ["xlora", "macro"]


def test_the_script_finds_a_changed_score_of_an_answer(tmp_path: Path):
    path = write_run(tmp_path) / "cells" / "xlora" / "1" / "finer.jsonl"
    path.write_text(
        path.read_text(encoding="utf-8").replace('"score": 0.0', '"score": 1.0', 1), encoding="utf-8"
    )
    status, lines = run_script(tmp_path)
    assert (status, lines[-1]) == (1, "does not agree")
    assert "('xlora', 1, 'finer'), answer 1: 0.0 here, 100.0 stored" in lines


@pytest.mark.parametrize(
    ("task", "prediction", "target"),
    [
        ("sentiment", " Positive. ", "positive"),
        ("sentiment", "positive news", "positive"),
        ("nwgi", "Mildly  negative!", "mildly negative"),
        ("xbrl_tags", "Goodwill", "us-gaap:Goodwill"),
        ("xbrl_tags", "us-gaap:goodwill", "us-gaap:Goodwill"),
        ("xbrl_tags", "Goodwill,Goodwill", "us-gaap:Goodwill"),
        ("finer", "Cash,us-gaap:Assets,Goodwill", "Cash,Goodwill,Goodwill"),
        ("finer", "Cash", "Cash,Goodwill"),
        ("finer", "Cash,", "Cash"),
        ("xbrl_value", "$1,200.0", "1200"),
        ("xbrl_value", "(1,200)", "-1200"),
        ("xbrl_value", "(-1,200)", "-1200"),
        ("xbrl_value", "(-1,200)", "1200"),
        ("xbrl_value", "(+1,200)", "1200"),
        ("xbrl_value", "1200 million", "1200"),
        ("xbrl_value", "3.0", "3.01"),
        ("xbrl_value", "12,00", "1200"),
        ("xbrl_value", "", "1200"),
        ("financial_math", "3.014", "3.01"),
        ("financial_math", "3.016", "3.01"),
        ("financial_math", "10000009", "10000000.00"),
        ("xbrl_formula", "us-gaap:A/us-gaap:B", "A / B"),
        ("xbrl_formula", "A - us-gaap:B", "-(us-gaap:B - us-gaap:A)"),
        ("xbrl_formula", "1 - A / B", "(B - A) / B"),
        ("xbrl_formula", "A / (B - B)", "A / B"),
        ("xbrl_formula", "100 - 100 * A / B", "(B - A) / B * 100"),
        ("xbrl_formula", "1 * A / B", "A / B"),
        ("xbrl_formula_calc", "0", "(0 / 9) * 100"),
        ("xbrl_formula_calc", "12", "(12 / 100) * 100"),
        ("xbrl_formula_calc", "(0 * 100) / 9", "(0 / 9) * 100"),
        ("xbrl_formula_calc", "100 * (1 - 5 / 8)", "(8 - 5) / 8 * 100"),
        ("xbrl_formula", "A ** B", "A * B"),
        ("xbrl_formula", "A / B) * 100", "(A / B) * 100"),
        ("xbrl_formula_calc", "100 * 1,200.0 / 8000", "(1200 / 8000) * 100"),
        ("xbrl_formula_calc", "15", "(1200 / 8000) * 100"),
        ("xbrl_formula_calc", "(12000 / 8000) * 100", "(1200 / 8000) * 100"),
        ("xbrl_term", "The assets, in total", "total assets"),
        ("xbrl_term", "a \N{EN DASH} total", "total"),
        ("xbrl_term", "the", "an"),
        ("xbrl_term", "a\N{EN DASH}the total", "total"),
        ("xbrl_term", "\N{EURO SIGN}5 of \N{LEFT SINGLE QUOTATION MARK}cash", "5 of cash"),
        ("financebench", "$8.70", "870"),
    ],
)
def test_both_scorers_give_the_same(task: str, prediction: str, target: str):
    assert recompute.SCORERS[task](prediction, target) == get_task(task).scorer(prediction, target)


@pytest.mark.parametrize("clusters", [[10], [10, 10, 10], [4, 40], [1, 30, 1000]])
def test_both_bounds_of_all_wrong_tasks_are_the_same(clusters: list[int]):
    assert recompute.bound(clusters) == pytest.approx(extreme_bound([1.0] * len(clusters), clusters))


def test_every_task_of_a_suite_is_scored():
    assert set(recompute.SCORERS) == {task for suite in SUITES.values() for task in suite.tasks}
