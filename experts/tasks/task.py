"""What a task is: its name, how an answer is scored, and where its data comes from.

Nothing here knows a model, a file format or how examples are built.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from .card import Card

Category = Literal["general", "certificates", "reporting", "analysis"]


@dataclass(frozen=True)
class Example:
    """One question and its one right answer.

    Attributes:
        context: The whole prompt.
        target: The right answer, without surrounding blanks.
        group: What belongs together in a bootstrap sample (a sentence, a headline, an item of a company);
            empty when the example stands alone.
    """

    context: str
    target: str
    group: str = ""


@dataclass(frozen=True, kw_only=True)
class Task:
    """One row of the benchmark.

    Attributes:
        name: Key of the task in the table, files and commands.
        version: Raised whenever a prompt, target or scorer changes: scores of two versions do not compare.
        category: Which of FinLoRA's four groups of tasks it belongs to.
        title: What a reader sees in a report.
        prompt: Wording of the question, with what differs between examples in angle brackets.
        answer_form: What a right answer looks like.
        scorer: Maps (prediction, target) to 0.0 (wrong) .. 1.0 (right).
        finlora_metric: What FinLoRA reports: accuracy over labels found in the answer, the same over lists
            of tags, or BERTScore.
        metrics: Names of further metrics over a test set, from ``METRICS``.
        max_new_tokens: Longest answer generated, in tokens of a usual subword tokenizer.
        source: Where the questions come from.
        licence: What the source states about use of its data.
        card: Sizes, labels and faults of the published data.
    """

    name: str
    version: int
    category: Category
    title: str
    prompt: str
    answer_form: str
    scorer: Callable[[str, str], float]
    finlora_metric: Literal["labels", "lists", "BERTScore"] = "labels"
    metrics: tuple[str, ...] = ()
    max_new_tokens: int
    source: str
    licence: str
    card: Card

    def score(self, predictions: list[str], targets: list[str]) -> float:
        """Mean score over the examples, from 0 to 100."""
        scores = [self.scorer(*pair) for pair in zip(predictions, targets, strict=True)]
        return 100.0 * sum(scores) / len(scores) if scores else 0.0
