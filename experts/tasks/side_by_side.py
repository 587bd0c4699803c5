"""Both scorers of a task, and its further metrics, over the answers to a whole test set."""

from collections.abc import Sequence
from dataclasses import dataclass

from .bertscore import bertscore
from .finlora_compat import as_pandas_2, compat_score
from .metrics import METRICS
from .task import Task


@dataclass(frozen=True)
class Measured:
    """One number over a test set, 0 to 100, as lowest and highest where it depends on an arbitrary order."""

    name: str
    lowest: float
    highest: float


def side_by_side(
    task: Task, predictions: Sequence[str], targets: Sequence[str], *, encoder: str | None = None
) -> list[Measured]:
    """The task's own score, its metrics, and what FinLoRA's test code would report.

    Args:
        task: Which scorers to use.
        predictions: Answers of a model, at least one.
        targets: The right answers.
        encoder: Folder or hub id of the encoder for BERTScore, such as ``bertscore.MODEL``; without one it is
            left out, since it may have to be fetched.

    Raises:
        FinLoraError: The encoder cannot be loaded.
    """
    measured = [_certain("score", task.score(list(predictions), list(targets)))]
    measured += [_certain(name, METRICS[name](predictions, targets)) for name in task.metrics]
    if task.finlora_metric == "BERTScore":
        if encoder is not None:
            values = bertscore(predictions, targets, model=encoder)
            measured.append(_certain("finlora-compat BERTScore", sum(values) / len(values)))
        return measured
    compat = compat_score(predictions, as_pandas_2(targets), lists=task.finlora_metric == "lists")
    return [
        *measured,
        Measured("finlora-compat accuracy", compat.lowest, compat.highest),
        Measured("finlora-compat weighted F1", *sorted((compat.lowest_f1, compat.highest_f1))),
    ]


def _certain(name: str, value: float) -> Measured:
    return Measured(name, value, value)
