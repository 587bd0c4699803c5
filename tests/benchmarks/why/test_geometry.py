"""Transfer from results, and the study of a run's experts."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from finlora.benchmarks.layout import RunLayout
from finlora.benchmarks.results import Result, ResultIndex, write_results
from finlora.benchmarks.why import figures
from finlora.benchmarks.why.geometry import read_tasks, study_geometry, transfer_matrix
from finlora.benchmarks.why.similarity import MEASURES
from finlora.experts.errors import FinLoraError

TASKS = ("finer", "headline", "sentiment", "fpb")
BASE = (10.0, 0.0, 40.0, 20.0)
SCORES = (
    (60.0, 0.0, 30.0, 20.0),
    (10.0, 80.0, 40.0, 40.0),
    (35.0, 20.0, 90.0, 60.0),
    (10.0, 0.0, 50.0, 100.0),
)
"""Of the expert of the row on the task of the column."""


def results() -> list[Result]:
    """What a run found, in as far as transfer needs it."""
    rows = {"base": BASE} | {f"expert:{task}": row for task, row in zip(TASKS, SCORES, strict=True)}
    return [
        Result(method=method, task=task, metric="score", value=value)
        for method, row in rows.items()
        for task, value in zip(TASKS, row, strict=True)
    ]


@pytest.fixture
def run(make_expert: Callable[..., Path], tmp_path: Path) -> RunLayout:
    """A run of four random experts."""
    layout = RunLayout(tmp_path)
    for seed, task in enumerate(TASKS):
        assert make_expert(task, seed=seed) == layout.expert(task)
    layout.config.write_text(json.dumps({"tasks": TASKS}))
    write_results(layout.results, results())
    return layout


def test_transfer_is_1_for_the_own_expert_and_0_for_the_base():
    transfer = transfer_matrix(ResultIndex(results()), TASKS)
    assert np.diagonal(transfer) == pytest.approx([1, 1, 1, 1])
    assert transfer[0] == pytest.approx([1, 0, -0.2, 0])
    assert transfer[2] == pytest.approx([0.5, 0.25, 1, 0.5])


def test_a_task_that_its_expert_did_not_learn_has_no_transfer():
    index = ResultIndex([*results(), Result(method="base", task="headline", metric="score", value=80.0)])
    transfer = transfer_matrix(index, TASKS)
    assert np.isnan(transfer[:, 1]).all()
    assert not np.isnan(np.delete(transfer, 1, axis=1)).any()
    with pytest.raises(FinLoraError, match="no score of expert:finer on nwgi"):
        transfer_matrix(index, (*TASKS, "nwgi"))


def test_a_study_tests_every_measure(run: RunLayout):
    geometry = study_geometry(run)
    assert geometry.similarity.experts == TASKS
    assert set(geometry.tests) == set(geometry.adjusted) == set(MEASURES)
    for measure, test in geometry.tests.items():
        assert (test.pairs, test.permutations, test.exact) == (6, 24, True)
        assert geometry.adjusted[measure] >= test.p_value >= 1 / 24
    assert study_geometry(run, ordered=True).tests["cosine"].pairs == 12
    assert read_tasks(run) == list(TASKS)
    run.config.unlink()
    with pytest.raises(FinLoraError, match="holds no benchmark run"):
        read_tasks(run)


def test_the_plots_show_every_pair_once_and_the_p_value(run: RunLayout):
    geometry = study_geometry(run)
    figure = figures.similarity_against_transfer(geometry, "cosine")
    (dots,) = figure.data
    assert len(dots.x) == 6
    assert list(dots.customdata[0][:2]) == ["finer", "headline"]
    assert dots.x[0] == geometry.similarity.overall["cosine"][0, 1]
    assert dots.y[1] == pytest.approx((-0.2 + 0.5) / 2)
    test = geometry.tests["cosine"]
    assert f"Spearman {test.correlation:+.2f}, p = {test.p_value:.2g}" in figure.layout.title.text
    similarity, transfer = figures.similarity_and_transfer(geometry, "row_overlap").data
    assert math.isnan(similarity.z[2][2])
    assert similarity.z[0][1] == geometry.similarity.overall["row_overlap"][0, 1]
    assert transfer.z[0][2] == pytest.approx(-0.2)
    lines = figures.similarity_by_layer(geometry, "cosine", "headline").data
    assert [line.name for line in lines] == ["finer", "sentiment", "fpb"]
    assert lines[0].y[3] == geometry.similarity.by_layer["cosine"][3, 1, 0]
    assert list(lines[0].x[:2]) == ["0 down_proj", "0 up_proj"]
