"""Scores of a whole test set that are no mean over examples, or that stand beside a task's own score.

Functions (predictions, targets) -> 0 to 100 in the table ``METRICS``; a task names those that suit it.
"""

from collections.abc import Callable, Sequence

from rouge_score.rouge_scorer import RougeScorer
from sklearn.metrics import f1_score

from .scorers import normalized_label, tag_set_score

Metric = Callable[[Sequence[str], Sequence[str]], float]


def macro_f1(predictions: Sequence[str], targets: Sequence[str]) -> float:
    """Mean over the labels of the test set of each label's F1; an answer that is no label is a miss."""
    return _label_f1(predictions, targets, "macro")


def micro_f1(predictions: Sequence[str], targets: Sequence[str]) -> float:
    """F1 over all answers together: accuracy, where every answer is one of the labels, and more elsewhere."""
    return _label_f1(predictions, targets, "micro")


def list_macro_f1(predictions: Sequence[str], targets: Sequence[str]) -> float:
    """``macro_f1`` over the tags of comma-separated lists, compared position by position."""
    return macro_f1(*_positions(predictions, targets))


def list_micro_f1(predictions: Sequence[str], targets: Sequence[str]) -> float:
    """``micro_f1`` over the tags of comma-separated lists, compared position by position."""
    return micro_f1(*_positions(predictions, targets))


def any_order_f1(predictions: Sequence[str], targets: Sequence[str]) -> float:
    """Mean F1 of lists of tags whose order does not count."""
    return 100.0 * _mean([tag_set_score(*pair) for pair in zip(predictions, targets, strict=True)])


def rouge_l(predictions: Sequence[str], targets: Sequence[str]) -> float:
    """Mean ROUGE-L F1 (Lin 2004) with Porter's stemmer, as google-research's ``rouge-score`` computes it."""
    scorer = RougeScorer(["rougeL"], use_stemmer=True)
    pairs = zip(predictions, targets, strict=True)
    return 100.0 * _mean([float(scorer.score(target, answer)["rougeL"].fmeasure) for answer, target in pairs])


METRICS: dict[str, Metric] = {
    "macro F1": macro_f1,
    "micro F1": micro_f1,
    "macro F1 of tags": list_macro_f1,
    "micro F1 of tags": list_micro_f1,
    "F1 of tags in any order": any_order_f1,
    "ROUGE-L": rouge_l,
}


def _label_f1(predictions: Sequence[str], targets: Sequence[str], average: str) -> float:
    gold = [normalized_label(target) for target in targets]
    answers = [normalized_label(prediction) for prediction in predictions]
    labels = sorted(set(gold))
    f1 = f1_score(gold, answers, labels=labels, average=average, zero_division=0)  # pyright: ignore[reportArgumentType]
    return 100.0 * float(f1)


def _positions(predictions: Sequence[str], targets: Sequence[str]) -> tuple[list[str], list[str]]:
    answers: list[str] = []
    gold: list[str] = []
    for prediction, target in zip(predictions, targets, strict=True):
        given, wanted = (
            [tag.strip().removeprefix("us-gaap:") for tag in text.split(",")] for text in (prediction, target)
        )
        gold += wanted
        answers += (given + [""] * len(wanted))[: len(wanted)]
    return answers, gold


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
