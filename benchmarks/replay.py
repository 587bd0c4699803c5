"""Rules that choose one expert a question, replayed from stored answers: nothing is generated again.

A finished run keeps every expert's answers to every task's test questions. A rule that hands a whole question
to one expert answers what that expert answered, so its score follows exactly from its choices (the design of
RouterBench, Hu et al. 2024, arXiv:2403.12031).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ..experts.base_model import Base
from ..experts.errors import FinLoraError
from ..experts.provenance import examples_sha256, source_commit
from ..experts.tasks import Example, read_examples
from ..router.selectors import Choice
from .cells import Cell
from .evaluate import count_answer_tokens, count_parameters
from .layout import EXPERT_PREFIX, RunLayout
from .predictions import Prediction, Summary, read_predictions

Choices = Mapping[str, Sequence[Choice]]
"""By task, the expert chosen for each of its test questions, in their order."""


@dataclass(frozen=True)
class StoredAnswers:
    """Every expert's answers to every task's test questions.

    Attributes:
        layout: The run's folder.
        cells: Answers by task and expert; experts bear the names of their tasks.
    """

    layout: RunLayout
    cells: Mapping[str, Mapping[str, Cell]]

    @classmethod
    def read(
        cls, layout: RunLayout, tasks: Sequence[str], experts: Sequence[str] | None = None
    ) -> StoredAnswers:
        """Read the answers of a run whose experts have answered all these tasks.

        Args:
            layout: The run, in the scope whose answers are wanted.
            tasks: What was asked.
            experts: Who answered; by default the experts of these tasks.

        Raises:
            FinLoraError: A file is missing or malformed, or experts answered different questions or stood on
                different bases.
        """
        cells = {
            task: {
                expert: Cell(*read_predictions(layout.cell(f"{EXPERT_PREFIX}{expert}", None, task)))
                for expert in experts or tasks
            }
            for task in tasks
        }
        bases = set()
        for task, by_expert in cells.items():
            summaries = [cell.summary for cell in by_expert.values()]
            bases |= {(one.base_revision, one.quantization) for one in summaries}
            if len({(one.examples_sha256, one.task_version, one.n) for one in summaries}) != 1:
                raise FinLoraError(
                    f"The experts in {layout.folder} answered different questions of {task}, so their "
                    "answers cannot stand for each other; start a new run."
                )
        if len(bases) != 1:
            raise FinLoraError(
                f"The experts in {layout.folder} answered on different bases; start a new run."
            )
        return cls(layout, cells)

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks."""
        return tuple(self.cells)

    def questions(self, task: str) -> list[Example]:
        """Read the test questions of a task.

        Raises:
            FinLoraError: They are missing, or not those that the experts answered.
        """
        path = self.layout.examples(task, "test")
        examples = read_examples(path)
        if examples_sha256(examples) != self.cells[task][task].summary.examples_sha256:
            raise FinLoraError(f"{path} is not what the experts answered; start a new run.")
        return examples


def replay(answers: StoredAnswers, choices: Choices) -> dict[str, list[Prediction]]:
    """Return what a rule answers, with scores, by task: the stored answers of the experts it chose.

    Raises:
        FinLoraError: There is no such task or expert, or not one choice a question.
    """
    return {task: _replay_task(answers, task, chosen) for task, chosen in choices.items()}


def right_experts(answers: StoredAnswers) -> dict[str, list[Choice]]:
    """Choose as the oracle does: the expert of the question's task."""
    return {task: [Choice(task, 1.0)] * cells[task].summary.n for task, cells in answers.cells.items()}


def best_by_item(answers: StoredAnswers, experts: Sequence[str]) -> dict[str, list[Choice]]:
    """Choose, for each question, the one of these experts that scored highest: no rule can do better.

    Of experts that scored the same, the right one is chosen, else the first.
    """
    best = {}
    for task, cells in answers.cells.items():
        order = sorted(experts, key=lambda expert, task=task: expert != task)
        best[task] = [
            Choice(max(order, key=lambda expert: cells[expert].predictions[item].score), 1.0)
            for item in range(cells[task].summary.n)
        ]
    return best


def replayed_cell(
    answers: StoredAnswers,
    task: str,
    choices: Sequence[Choice],
    base: Base,
    *,
    label: str,
    experts: Sequence[str],
    seconds: float = 0.0,
) -> tuple[list[Prediction], Summary]:
    """Return one rule's answers to one task in the form in which `evaluate_model` returns a model's.

    Args:
        answers: The experts' answers.
        task: The task.
        choices: One for each of its test questions.
        base: The run's base.
        label: Name of the rule in the summary.
        experts: Those the rule may choose; all of them must be in memory.
        seconds: Time to choose. The summary adds the time that the chosen experts took, each in proportion to
            the share of the questions that it was chosen for.

    Raises:
        FinLoraError: As `replay`.
    """
    predictions = _replay_task(answers, task, choices)
    summaries = {expert: cell.summary for expert, cell in answers.cells[task].items()}
    chosen = [summaries[choice.expert] for choice in choices]
    tokens = count_answer_tokens(base.tokenizer, predictions)
    seconds += sum(one.seconds / one.n for one in chosen)
    bare = count_parameters(base.model)
    return predictions, replace(
        chosen[0],
        model=label,
        score=100 * sum(one.score for one in predictions) / len(predictions),
        n=len(predictions),
        too_long=sum(one.too_long for one in predictions),
        seconds=seconds,
        peak_bytes=max(one.peak_bytes for one in chosen),
        answer_tokens=tokens,
        tokens_per_second=tokens / seconds,
        parameters=bare + sum(summaries[expert].parameters - bare for expert in experts),
        commit=source_commit(),
    )


def _replay_task(answers: StoredAnswers, task: str, choices: Sequence[Choice]) -> list[Prediction]:
    if task not in answers.cells:
        raise FinLoraError(
            f"{answers.layout.folder} has no task {task!r}; it has {', '.join(answers.tasks)}."
        )
    cells = answers.cells[task]
    if unknown := sorted({choice.expert for choice in choices} - cells.keys()):
        raise FinLoraError(
            f"{answers.layout.folder} has no expert {unknown[0]!r}; it has {', '.join(answers.tasks)}."
        )
    asked = cells[task].summary.n
    if len(choices) != asked:
        raise FinLoraError(f"{task} has {asked} test questions, but {len(choices)} choices were given.")
    return [cells[choice.expert].predictions[item] for item, choice in enumerate(choices)]
