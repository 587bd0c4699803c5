"""Rules that choose one expert a question, on a benchmark run: fitted, asked, and their choices on disk."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..experts.atomic_write import write_text
from ..experts.errors import FinLoraError
from ..experts.tasks import Example, read_examples
from ..router.selectors import Choice, Selector
from .asking import WAYS, in_training_wordings
from .replay import StoredAnswers
from .results import json_lines, read_json_lines


@dataclass(frozen=True)
class Selection:
    """What a rule chose.

    Attributes:
        choices: By task, the expert for each of its test questions, in their order.
        seconds: By task, the time to choose them all.
        fit_seconds: Time to learn from the training prompts.
    """

    choices: dict[str, list[Choice]]
    seconds: dict[str, float] = field(default_factory=dict)
    fit_seconds: float = 0.0


def select(
    answers: StoredAnswers,
    selector: Selector,
    *,
    experts: Sequence[str],
    prompts: int,
    seed: int,
    wordings: bool = False,
) -> Selection:
    """Fit a rule on training prompts of a run and let it choose for the test questions of every task.

    Args:
        answers: The experts' answers, to whose questions the choices belong.
        selector: The rule; it is fitted here.
        experts: Those that it may choose; prompts of the others' tasks are kept from it.
        prompts: Most training prompts of each expert.
        seed: Seed of the draw of training prompts.
        wordings: Whether instructions of the training prompts come in all wordings for training, in turn.

    Raises:
        FinLoraError: Examples are missing or malformed, test questions are not those that were answered, or
            the rule cannot be fitted.
    """
    start = time.perf_counter()
    learned = {
        expert: draw_prompts(read_examples(answers.layout.examples(expert, "train")), prompts, seed)
        for expert in experts
    }
    if wordings:
        learned = {expert: _in_all_wordings(drawn) for expert, drawn in learned.items()}
    selector.fit(learned)
    ask = WAYS[answers.layout.scope.asking]
    selection = Selection({}, fit_seconds=time.perf_counter() - start)
    for task in answers.tasks:
        questions = [ask(example.context) for example in answers.questions(task)]
        start = time.perf_counter()
        selection.choices[task] = selector.choose(questions)
        selection.seconds[task] = time.perf_counter() - start
    return selection


def draw_prompts(examples: Sequence[Example], limit: int, seed: int) -> list[str]:
    """At most `limit` different prompts, drawn by the seed."""
    prompts = list(dict.fromkeys(example.context for example in examples))
    return random.Random(seed).sample(prompts, min(limit, len(prompts)))


def _in_all_wordings(prompts: Sequence[str]) -> list[str]:
    asked = [Example(prompt, "") for prompt in prompts]
    return [example.context for example in in_training_wordings(asked, authors=True)]


def write_choices(folder: Path, choices: dict[str, list[Choice]]) -> None:
    """Write the choices of a rule, a file for each task with a line for each question.

    Args:
        folder: As `RunLayout.choices` names it; files of the same tasks in it are replaced, each in one step.
        choices: By task.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for task, chosen in choices.items():
        records = (
            {"question": number, "expert": choice.expert, "confidence": choice.confidence}
            for number, choice in enumerate(chosen)
        )
        write_text(folder / f"{task}.jsonl", json_lines(records))


def read_choices(folder: Path, tasks: Sequence[str]) -> dict[str, list[Choice]]:
    """Read what `write_choices` wrote.

    Raises:
        FinLoraError: A file is missing or malformed, or its questions are not numbered from 0.
    """
    return {task: _read_task(folder / f"{task}.jsonl") for task in tasks}


def _read_task(path: Path) -> list[Choice]:
    choices = []
    for number, record in enumerate(read_json_lines(path)):
        match record:
            case {"question": question, "expert": str(expert), "confidence": int() | float() as confidence}:
                if question != number:
                    raise FinLoraError(
                        f"{path} has question {question!r} where question {number} belongs; make it again."
                    )
                choices.append(Choice(expert, float(confidence)))
            case _:
                raise FinLoraError(
                    f"{path}, record {number + 1}: question, expert and confidence are needed; make it again."
                )
    return choices
