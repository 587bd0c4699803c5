"""What a task is: its name, how an answer is scored, and where its data comes from.

Nothing here knows a model, a file format or how examples are built.
"""

from collections.abc import Callable
from dataclasses import dataclass


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
        title: What a reader sees in a report.
        scorer: Maps (prediction, target) to 0.0 (wrong) .. 1.0 (right).
        max_new_tokens: Longest answer generated, in tokens of a usual subword tokenizer.
        source: Where the questions come from.
        licence: What the source states about use of its data.
    """

    name: str
    version: int
    title: str
    scorer: Callable[[str, str], float]
    max_new_tokens: int
    source: str
    licence: str

    def score(self, predictions: list[str], targets: list[str]) -> float:
        """Mean score over the examples, from 0 to 100."""
        scores = [self.scorer(*pair) for pair in zip(predictions, targets, strict=True)]
        return 100.0 * sum(scores) / len(scores) if scores else 0.0
