"""From answers to numbers to a report that opens offline and shows those numbers."""

import dataclasses
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser

import numpy as np
import pytest

from finlora.benchmarks.cells import read_cells
from finlora.benchmarks.costs import compute_costs
from finlora.benchmarks.findings import headline, verdict
from finlora.benchmarks.layout import RunLayout
from finlora.benchmarks.methods import make_methods
from finlora.benchmarks.predictions import read_predictions, write_predictions
from finlora.benchmarks.report import build_report
from finlora.benchmarks.results import Result, ResultIndex, read_results, write_results
from finlora.benchmarks.scoring import compute_results
from finlora.experts.errors import FinLoraError

TASKS = ("xbrl_tags", "xbrl_value", "finer", "headline")
SEEDS = (0, 1, 2)


@pytest.fixture
def results(invented_run: RunLayout, job_costs: dict[str, dict[str, float]]) -> list[Result]:
    methods = make_methods(TASKS, SEEDS)
    cells = read_cells(invented_run, methods, TASKS)
    found = compute_results(cells, methods, seed=0, resamples=500, config_hash="abc123")
    found += compute_costs(cells, methods, job_costs, "abc123")
    write_results(invented_run.results, found)
    return found


def mean_score(layout: RunLayout, method: str, seed: int | None, task: str) -> float:
    predictions, _ = read_predictions(layout.cell(method, seed, task))
    return 100 * sum(one.score for one in predictions) / len(predictions)


def test_scores_are_means_of_the_stored_answers(invented_run: RunLayout, results: list[Result]):
    index = ResultIndex(results)
    for method in ("base", "uniform", "multitask", "expert:finer"):
        for task in TASKS:
            assert index.get(method, task).value == pytest.approx(
                mean_score(invented_run, method, None, task)
            )
    by_seed = np.array([[mean_score(invented_run, "xlora", seed, task) for task in TASKS] for seed in SEEDS])
    assert index.get("xlora", "macro").value == pytest.approx(by_seed.mean())
    for seed in SEEDS:
        assert index.get("xlora", "macro", seed=seed).value == pytest.approx(by_seed[seed].mean())


def test_the_oracle_is_the_diagonal_of_the_transfer_matrix(invented_run: RunLayout, results: list[Result]):
    index = ResultIndex(results)
    diagonal = [mean_score(invented_run, f"expert:{task}", None, task) for task in TASKS]
    assert [index.get("oracle", task).value for task in TASKS] == pytest.approx(diagonal)
    assert index.get("oracle", "macro").value == pytest.approx(np.mean(diagonal))


def test_comparisons_and_costs(results: list[Result]):
    index = ResultIndex(results)
    macro = {name: index.get(name, "macro").value for name in ("xlora", "oracle", "multitask")}
    difference = index.get("xlora", "macro", "difference:multitask")
    assert difference.value == pytest.approx(macro["xlora"] - macro["multitask"])
    assert difference.low is not None
    assert difference.high is not None
    assert difference.low < difference.value < difference.high
    ratio = index.get("xlora", "macro", "ratio:oracle")
    assert ratio.value == pytest.approx(100 * macro["xlora"] / macro["oracle"])
    costs = {
        (method, metric): index.get(method, "macro", metric).value
        for method in ("base", "uniform", "multitask", "xlora", "oracle", "expert:finer")
        for metric in ("trainable_parameters", "resident_parameters", "tokens_per_second", "training_seconds")
    }
    assert costs["base", "trainable_parameters"] == 0
    assert costs["xlora", "trainable_parameters"] == 430_000
    assert costs["oracle", "resident_parameters"] == 5_400_000
    assert costs["xlora", "tokens_per_second"] == 300
    # Jobs cost 10, 20, ... seconds: multi-task, four experts, three routers, of which the mean is counted.
    assert costs["base", "training_seconds"] == 0
    assert costs["multitask", "training_seconds"] == 10
    assert costs["expert:finer", "training_seconds"] == 40
    assert costs["oracle", "training_seconds"] == costs["uniform", "training_seconds"] == 20 + 30 + 40 + 50
    assert costs["xlora", "training_seconds"] == 20 + 30 + 40 + 50 + 70


def test_unknown_costs_are_left_out_not_invented(
    invented_run: RunLayout, job_costs: dict[str, dict[str, float]]
):
    methods = make_methods(TASKS, SEEDS)
    del job_costs["experts/finer"]
    cells = read_cells(invented_run, methods, TASKS)
    index = ResultIndex(compute_costs(cells, methods, job_costs, "abc123"))
    assert index.find("oracle", "macro", "training_seconds") is None
    assert index.get("multitask", "macro", "training_seconds").value == 10


@pytest.mark.parametrize(("field", "value"), [("examples_sha256", "others"), ("base_revision", "other")])
def test_answers_to_other_questions_or_of_another_base_are_not_compared(
    invented_run: RunLayout, field: str, value: str
):
    path = invented_run.cell("uniform", None, "finer")
    predictions, summary = read_predictions(path)
    write_predictions(path, predictions, dataclasses.replace(summary, **{field: value}))
    with pytest.raises(FinLoraError, match=r"new run"):
        read_cells(invented_run, make_methods(TASKS, SEEDS), TASKS)


@pytest.mark.parametrize(
    ("low", "high", "word"), [(0.1, 2.0, "better"), (-2.0, -0.1, "worse"), (-0.1, 2.0, "no difference shown")]
)
def test_better_and_worse_are_said_only_where_the_interval_says_so(low: float, high: float, word: str):
    result = Result(
        method="xlora", task="macro", metric="difference:x", value=(low + high) / 2, low=low, high=high
    )
    assert verdict(result) == word


def test_the_headline_says_what_the_numbers_say(results: list[Result]):
    index = ResultIndex(results)
    sentences = headline(index, make_methods(TASKS, SEEDS), TASKS)
    assert f"{index.get('xlora', 'macro', 'ratio:oracle').value:.1f} %" in sentences[0]
    uniform = index.get("xlora", "macro", "difference:uniform")
    assert f"X-LoRA is better than the uniform average: {uniform.value:+.1f} (" in "\n".join(sentences)


class _Links(HTMLParser):
    """Collects whatever a browser would load from elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.external: list[str] = []
        self.ids: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.ids.add(values.get("id") or "")
        if tag == "link" or "src" in values:
            self.external.append(f"{tag} {values}")


def test_the_report_shows_the_numbers_and_needs_no_network(invented_run: RunLayout, results: list[Result]):
    build_report(invented_run)
    html = invented_run.report_html.read_text(encoding="utf-8")
    page = _Links()
    page.feed(html)
    assert page.external == []
    assert "@import" not in re.sub(r"<script>.*?</script>", "", html, flags=re.DOTALL)
    assert page.ids >= {
        f"plot-{name}" for name in ("headline", "tasks", "transfer", "routing_prompt", "routing_answer")
    }
    assert html.count("plotly.js v") == 1
    index = ResultIndex(results)
    markdown = invented_run.report_markdown.read_text(encoding="utf-8")
    for method in ("base", "uniform", "multitask", "xlora", "oracle"):
        result = index.get(method, "macro")
        assert f"{result.value:.1f} ({result.low:.1f} to {result.high:.1f})" in markdown
        assert f"{result.value:.1f} <small>({result.low:.1f} to {result.high:.1f})" in html
    assert "| 3 |" in markdown  # prompts that were too long


def test_the_picture_has_a_dot_and_a_line_for_every_method(invented_run: RunLayout, results: list[Result]):
    build_report(invented_run)
    picture = ElementTree.parse(invented_run.picture).getroot()
    name = "{http://www.w3.org/2000/svg}"
    dots = picture.findall(f"{name}circle")
    assert len(dots) == 6
    texts = [text.text for text in picture.findall(f"{name}text")]
    value = ResultIndex(results).get("xlora", "macro").value
    assert f"{value:.1f}" in texts
    assert texts.count("X-LoRA") == 1


def test_a_run_without_numbers_has_no_report(invented_run: RunLayout):
    with pytest.raises(FinLoraError, match=r"results\.jsonl"):
        build_report(invented_run)


def test_results_are_written_and_read_whole(invented_run: RunLayout, results: list[Result]):
    assert read_results(invented_run.results) == results
