"""The score that FinLoRA's test code gives, as an interval over the orders in which it may break ties.

FinLoRA (https://github.com/Open-Finance-Lab/FinLoRA, test/test_dataset.py) looks for every target of the test
set inside the answer, takes the one that begins first, and breaks ties by the order of a Python set, which
depends on the hash seed. Labels that begin at one place of a text are prefixes of each other, so the labels
form a forest, and the lowest and highest score over all orders are found exactly, by dynamic programming.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from sklearn.metrics import f1_score

_DELIMITER = "Answer:"


@dataclass(frozen=True)
class CompatScore:
    """What FinLoRA's code reports, at the worst and at the best order of its set of labels; 0 to 100.

    Attributes:
        lowest: Accuracy under the order that makes fewest answers right.
        highest: Accuracy under the order that makes most answers right.
        lowest_f1: Its weighted F1 under the order of ``lowest``. Inflated: a wrong answer counts as a class
            of its own, so that accuracy a becomes about 2a / (1 + a).
        highest_f1: Its weighted F1 under the order of ``highest``.
        answers: Number of answers compared; lists of tags are taken apart.
    """

    lowest: float
    highest: float
    lowest_f1: float
    highest_f1: float
    answers: int


def compat_score(predictions: Sequence[str], targets: Sequence[str], *, lists: bool = False) -> CompatScore:
    """Scores a whole test set as FinLoRA does; one label's score depends on the targets of all others.

    Args:
        predictions: Answers of a model. Only what follows the last "Answer:" counts, as there.
        targets: The right answers, as text. FinLoRA reads them with pandas: see ``as_pandas_2``.
        lists: Whether targets are comma-separated lists (FiNER, FNXL), which FinLoRA compares position by
            position, cut or filled up to the length of the target.

    Raises:
        ValueError: There are no answers, or not as many predictions as targets.
    """
    if not targets or len(predictions) != len(targets):
        raise ValueError(f"{len(predictions)} predictions for {len(targets)} targets")
    answers = [prediction.split(_DELIMITER)[-1].strip() for prediction in predictions]
    gold = list(targets)
    if lists:
        answers, gold = _take_lists_apart(answers, gold)
    labels = {target.lower() for target in gold}
    found = [_deepest_first_label(answer.lower(), labels) for answer in answers]
    forest = _Forest(labels, Counter(zip(found, map(str.lower, gold), strict=True)))
    bounds = []
    for sign in (-1, 1):
        winners = forest.best_order(sign)
        right = [
            deepest is not None and winners[deepest] == target.lower()
            for deepest, target in zip(found, gold, strict=True)
        ]
        responses = [
            target if ok else answer for ok, target, answer in zip(right, gold, answers, strict=True)
        ]
        f1 = f1_score(gold, responses, average="weighted", zero_division=0)  # pyright: ignore[reportArgumentType]
        bounds.append((100.0 * sum(right) / len(right), 100.0 * float(f1)))
    (lowest, lowest_f1), (highest, highest_f1) = bounds
    return CompatScore(lowest, highest, lowest_f1, highest_f1, len(gold))


def as_pandas_2(targets: Sequence[str]) -> list[str]:
    """Targets as text of what pandas 2's ``read_json`` makes of them, as FinLoRA's results did.

    A column whose texts are all numbers becomes a column of numbers, whole ones without a decimal point:
    "3875393000000.0" becomes "3875393000000". Under pandas 3 they stay as they are.
    """
    try:
        numbers = [float(target) for target in targets]
    except ValueError:
        return list(targets)
    whole = all(number.is_integer() and abs(number) < 2**63 for number in numbers)
    return [str(int(number)) if whole else str(number) for number in numbers]


def _take_lists_apart(predictions: Sequence[str], targets: Sequence[str]) -> tuple[list[str], list[str]]:
    answers: list[str] = []
    gold: list[str] = []
    for prediction, target in zip(predictions, targets, strict=True):
        given, wanted = (
            [part.strip().replace("\n", "") for part in text.split(",")] for text in (prediction, target)
        )
        gold += wanted
        answers += (given + [""] * len(wanted))[: len(wanted)]
    return answers, gold


def _deepest_first_label(answer: str, labels: set[str]) -> str | None:
    """The longest of the labels that begin first in the answer; the shorter ones are its prefixes."""
    first, deepest = len(answer) + 1, None
    for label in labels:
        index = answer.find(label)
        if index != -1 and (index < first or (index == first and len(label) > len(deepest or ""))):
            first, deepest = index, label
    return deepest


class _Forest:
    """Labels, each below its longest proper prefix among them.

    Of the labels on the way from a root down to the deepest one found, FinLoRA takes the first in the order
    of its set. For any label the order may or may not put it before the winner of the labels above it,
    freely: moving it to the very front or the very end changes nothing above it. So the best order is a
    choice at each label.
    """

    def __init__(self, labels: set[str], counts: Counter[tuple[str | None, str]]) -> None:
        self.counts = counts
        self.children: dict[str | None, list[str]] = {None: [], **{label: [] for label in labels}}
        for label in sorted(labels):
            prefixes = (label[:end] for end in range(len(label) - 1, -1, -1))
            parent = next((prefix for prefix in prefixes if prefix in labels), None)
            self.children[parent].append(label)

    def best_order(self, sign: int) -> dict[str, str]:
        """The winner at each label under the order with most (sign 1) or fewest (-1) right answers."""

        @cache
        def value(label: str, winner: str) -> int:
            below = sum(max(value(child, w) for w in (winner, child)) for child in self.children[label])
            return sign * self.counts[label, winner] + below

        winners: dict[str, str] = {}
        waiting = [(root, root) for root in self.children[None]]
        while waiting:
            label, winner = waiting.pop()
            winners[label] = winner
            for child in self.children[label]:
                waiting.append((child, max((winner, child), key=lambda w, child=child: value(child, w))))
        return winners
