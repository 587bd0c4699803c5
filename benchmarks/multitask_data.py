"""What multi-task adapters are trained on, and with which settings: what makes them fair rivals."""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Sequence

from ..experts.settings import ExpertSettings
from ..experts.tasks import Example

TEMPERATURE = 2.0
"""Of the adapter whose tasks are drawn in proportion to n ** (1 / temperature)."""


def multitask_settings(settings: ExpertSettings, task_count: int) -> ExpertSettings:
    """The experts' recipe for one adapter with the parameters, steps and scale of all of them together.

    Where experts train for a number of steps, it runs once through what `multitask_examples` lays out.
    """
    growth = math.sqrt(task_count) if settings.method == "rslora" else task_count
    return dataclasses.replace(
        same_rank_settings(settings), rank=settings.rank * task_count, alpha=settings.alpha * growth
    )


def same_rank_settings(settings: ExpertSettings) -> ExpertSettings:
    """The experts' recipe for one adapter of one expert's size and the steps of all of them together."""
    return dataclasses.replace(
        settings, max_steps=None, epochs=settings.epochs if settings.max_steps is None else 1.0
    )


def multitask_examples(
    by_task: Sequence[tuple[Sequence[Example], ExpertSettings]], seed: int
) -> list[Example]:
    """The examples of all tasks, each task as often as its own expert sees it.

    Drawn in proportion to their number instead, a task with few examples would hardly be seen, and the
    adapter would be weaker than it has to be.

    Args:
        by_task: Examples of each task and the settings of its expert.
        seed: Determines which ones are drawn.
    """
    order = random.Random(seed)
    drawn: list[Example] = []
    for examples, settings in by_task:
        if settings.max_steps is None:
            drawn += examples
        else:
            drawn += _in_rounds(examples, _seen(examples, settings), order)
    return drawn


def sampled_examples(by_task: Sequence[tuple[Sequence[Example], ExpertSettings]], seed: int) -> list[Example]:
    """As many examples in all, but each task in proportion to n ** (1 / temperature) of its n examples.

    Args:
        by_task: Examples of each task and the settings of its expert.
        seed: Determines which ones are drawn.
    """
    order = random.Random(seed)
    total = sum(_seen(examples, settings) for examples, settings in by_task)
    weights = [len(examples) ** (1 / TEMPERATURE) for examples, _ in by_task]
    drawn: list[Example] = []
    for (examples, _), weight in zip(by_task, weights, strict=True):
        drawn += _in_rounds(examples, round(total * weight / sum(weights)), order)
    return drawn


def _seen(examples: Sequence[Example], settings: ExpertSettings) -> int:
    """How many examples an expert sees, each as often as it does."""
    if settings.max_steps is None:
        return len(examples)
    return settings.max_steps * settings.batch_size * settings.gradient_accumulation


def _in_rounds(examples: Sequence[Example], count: int, order: random.Random) -> list[Example]:
    """Draw without putting back, again and again from all."""
    passes = -(-count // len(examples))
    shuffled = [one for _ in range(passes) for one in order.sample(examples, len(examples))]
    return shuffled[:count]
