"""Where two methods differ: the questions that one answers better than the other, with both answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ...experts.errors import FinLoraError
from ...experts.provenance import examples_sha256
from ...experts.tasks import Example, read_examples
from ..layout import EXPERT_PREFIX, RunLayout
from ..page import render_page
from ..predictions import Prediction, read_predictions

SHOWN_CHARACTERS = 1500


@dataclass(frozen=True)
class Difference:
    """A question that two methods answered with different scores.

    Attributes:
        number: Its place among the task's test questions, from 0.
        prompt: The whole prompt.
        target: The right answer.
        answers: What each method answered.
        scores: What each answer got, 0.0 (wrong) to 1.0 (right).
    """

    number: int
    prompt: str
    target: str
    answers: tuple[str, str]
    scores: tuple[float, float]

    @property
    def shown_prompt(self) -> str:
        """The prompt, without its middle where it is long: instruction and question stand at its ends."""
        if len(self.prompt) <= SHOWN_CHARACTERS:
            return self.prompt
        half = SHOWN_CHARACTERS // 2
        left_out = len(self.prompt) - 2 * half
        return f"{self.prompt[:half]}\n[… {left_out:,} characters …]\n{self.prompt[-half:]}"


def read_differences(
    layout: RunLayout,
    task: str,
    methods: tuple[str, str],
    seeds: tuple[int | None, int | None] = (None, None),
) -> list[Difference]:
    """Find the questions of a run that two methods answered with different scores, largest difference first.

    Args:
        layout: A run that has answered them.
        task: One of its tasks.
        methods: Names of two methods, such as `base` or `xlora`; `oracle` is the task's own expert.
        seeds: Their router seeds; None where a method has no router.

    Raises:
        FinLoraError: Answers are missing, or belong to other questions than those in the run's folder.
    """
    examples = read_examples(layout.examples(task, "test"))
    asked = examples_sha256(examples)
    answered = []
    for method, seed in zip(methods, seeds, strict=True):
        name = f"{EXPERT_PREFIX}{task}" if method == "oracle" else method
        predictions, summary = read_predictions(layout.cell(name, seed, task))
        if summary.examples_sha256 != asked:
            raise FinLoraError(
                f"{method} answered other questions of {task} than those in {layout.examples(task, 'test')}; "
                "give the folder of one run."
            )
        answered.append(predictions)
    return find_differences(examples, *answered)


def find_differences(
    examples: Sequence[Example], first: Sequence[Prediction], second: Sequence[Prediction]
) -> list[Difference]:
    """Compare two methods' answers to the same questions, as `read_differences` does."""
    found = [
        Difference(
            number,
            example.context,
            example.target,
            (one.prediction, other.prediction),
            (one.score, other.score),
        )
        for number, (example, one, other) in enumerate(zip(examples, first, second, strict=True))
        if one.score != other.score
    ]
    return sorted(found, key=lambda one: -abs(one.scores[0] - one.scores[1]))


def differences_html(differences: Sequence[Difference], methods: tuple[str, str], *, most: int = 20) -> str:
    """The questions as a piece of HTML, each folded up under its answers.

    Args:
        differences: What `read_differences` found.
        methods: Names of both methods.
        most: Questions shown; how many are not is said.
    """
    first_better = sum(one.scores[0] > one.scores[1] for one in differences)
    return render_page(
        __package__,
        "errors.html.jinja",
        differences=differences[:most],
        left_out=max(0, len(differences) - most),
        methods=methods,
        better=(first_better, len(differences) - first_better),
    )
