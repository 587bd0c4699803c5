"""The file of one evaluation: a record for each example, then a summary line. Computes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from ..experts.atomic_write import write_text
from ..experts.errors import FinLoraError
from .results import json_lines, read_json_lines

SUMMARY_KEY = "summary"


@dataclass(frozen=True)
class Prediction:
    """What a model answered to one example.

    Attributes:
        prediction: The answer, without surrounding blanks.
        target: The right answer.
        score: What the task's scorer gave, 0.0 (wrong) to 1.0 (right).
        group: Cluster of the example, empty if it stands alone.
        too_long: Whether the prompt did not fit the base; it was not run and scores 0.
    """

    prediction: str
    target: str
    score: float
    group: str = ""
    too_long: bool = False


@dataclass(frozen=True, kw_only=True)
class Summary:
    """The last line of an evaluation.

    Attributes:
        task: Name of the task.
        task_version: Version of its prompt, data and scorer.
        model: What was evaluated: `base`, or a folder.
        base: Name of the base.
        base_revision: Its commit, or a hash of its weights.
        quantization: How the base is stored.
        score: Mean score of all examples, 0 to 100.
        n: Number of examples.
        too_long: How many of them did not fit the base.
        seconds: Time to answer.
        peak_bytes: Largest memory of the process (CPU) or device (CUDA) meanwhile.
        answer_tokens: Tokens of all answers, counting one end of sequence for each.
        tokens_per_second: Answer tokens a second, the time to read the prompts included.
        parameters: Parameters that must be in memory to answer, base included.
        examples_sha256: Hash of the examples.
        commit: Commit of the code, or None outside a clone.
    """

    task: str
    task_version: int
    model: str
    base: str
    base_revision: str
    quantization: str
    score: float
    n: int
    too_long: int
    seconds: float
    peak_bytes: int
    answer_tokens: int
    tokens_per_second: float
    parameters: int
    examples_sha256: str
    commit: str | None


def clusters(predictions: Sequence[Prediction]) -> list[str]:
    """The cluster of each answer: its group, or one of its own if it stands alone."""
    # The blank keeps a number from being the name of a real group.
    return [one.group or f" {index}" for index, one in enumerate(predictions)]


def write_predictions(path: Path, predictions: list[Prediction], summary: Summary) -> None:
    """Write a whole evaluation in one step; the file is absent or complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json_lines([*(asdict(one) for one in predictions), {SUMMARY_KEY: asdict(summary)}]))


def read_predictions(path: Path) -> tuple[list[Prediction], Summary]:
    """Read an evaluation.

    Raises:
        FinLoraError: The file is missing, malformed, or has no summary.
    """
    records = read_json_lines(path)
    if not records or SUMMARY_KEY not in records[-1]:
        raise FinLoraError(
            f"{path} has no summary line at its end, so it is no complete evaluation; make it again."
        )
    try:
        summary = Summary(**records[-1][SUMMARY_KEY])
        return [Prediction(**record) for record in records[:-1]], summary
    except TypeError as error:
        raise FinLoraError(f"{path} is no evaluation of this version of FinLoRA: {error}.") from error
