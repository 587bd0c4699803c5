"""Does the geometry of experts go with what they do for each other's tasks? Start here: `study_geometry`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from ...experts.errors import FinLoraError
from ..layout import EXPERT_PREFIX, RunLayout
from ..results import ResultIndex, read_results
from ..statistics import holm
from .permutation import MantelTest, mantel_test
from .similarity import Similarity, measure_similarity


@dataclass(frozen=True)
class Geometry:
    """How alike a run's experts are, beside how well they do each other's tasks.

    Attributes:
        similarity: Every pair of experts under every measure.
        transfer: Normalized score of the expert of the row on the task of the column; see `transfer_matrix`.
        tests: For each measure, whether it goes with transfer.
        adjusted: Their p-values, corrected for the number of measures.
    """

    similarity: Similarity
    transfer: Float[np.ndarray, "expert task"]
    tests: Mapping[str, MantelTest]
    adjusted: Mapping[str, float]


def study_geometry(layout: RunLayout, *, ordered: bool = False, seed: int = 0) -> Geometry:
    """Compare the experts of a finished run, and test whether similarity goes with transfer.

    Args:
        layout: A run of three tasks or more.
        ordered: Whether both directions of a pair of experts count as pairs; by default their mean does.
        seed: Of the permutations, where not all are tried.

    Raises:
        FinLoraError: The run is not complete, or its experts cannot be compared.
    """
    tasks = read_tasks(layout)
    similarity = measure_similarity({task: layout.expert(task) for task in tasks})
    transfer = transfer_matrix(ResultIndex(read_results(layout.results)), tasks)
    tests = {
        measure: mantel_test(values, transfer, ordered=ordered, seed=seed)
        for measure, values in similarity.overall.items()
    }
    adjusted = holm({measure: test.p_value for measure, test in tests.items()})
    return Geometry(similarity, transfer, tests, adjusted)


def read_tasks(layout: RunLayout) -> list[str]:
    """Names of a run's tasks, which are those of its experts too.

    Raises:
        FinLoraError: The folder holds no run.
    """
    try:
        return list(json.loads(layout.config.read_text(encoding="utf-8"))["tasks"])
    except (OSError, ValueError, KeyError) as error:
        raise FinLoraError(
            f"{layout.folder} holds no benchmark run ({error}); make one, for example with `make demo`."
        ) from error


def transfer_matrix(index: ResultIndex, tasks: Sequence[str]) -> Float[np.ndarray, "expert task"]:
    """Score of every expert on every task, with 0 for the base and 1 for the task's own expert.

    Negative where an expert is worse than the base. A column is NaN where the task's own expert is no better
    than the base, so that nothing can be said in parts of its gain.

    Args:
        index: Results of a run.
        tasks: Its tasks.

    Raises:
        FinLoraError: The run lacks a score.
    """
    scores = np.array([[index.get(f"{EXPERT_PREFIX}{one}", task).value for task in tasks] for one in tasks])
    base = np.array([index.get("base", task).value for task in tasks])
    gain = np.diagonal(scores) - base
    return (scores - base) / np.where(gain > 0, gain, np.nan)
