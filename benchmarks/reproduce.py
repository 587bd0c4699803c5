"""Whether a finished run's numbers come out again, to the last digit: start at `check_run`."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from .answering_steps import answer_cell, ask
from .cross_task import all_results
from .jobs import arguments_of, plan_jobs
from .layout import RunLayout
from .predictions import read_predictions
from .results import read_results
from .run_config import read_config
from .workshop import Workshop


@dataclass(frozen=True)
class Check:
    """What came out again.

    Attributes:
        numbers: Numbers in results.jsonl.
        different: What those are about that came out otherwise.
        answers: Answers that were given again.
        changed: The cells in which some came out otherwise, with how many.
    """

    numbers: int
    different: list[str]
    answers: int
    changed: dict[str, int]

    @property
    def passed(self) -> bool:
        """Whether everything came out again."""
        return not self.different and not self.changed

    def __str__(self) -> str:
        """Say it in two sentences."""
        numbers = f"{self.numbers:,} numbers computed again from stored answers: "
        numbers += (
            "all equal to the last digit."
            if not self.different
            else (f"{len(self.different)} differ, first {self.different[0]}.")
        )
        answers = f"{self.answers:,} answers given again by their models: "
        answers += (
            "all equal."
            if not self.changed
            else (f"{sum(self.changed.values())} differ, in {', '.join(self.changed)}.")
        )
        return f"{numbers}\n{answers}"


def check_run(
    folder: Path, *, cells: int = 3, seed: int = 0, progress: Callable[[str], object] = lambda cell: None
) -> Check:
    """Compute all numbers of a finished run again, and let some of its methods answer again.

    On a CPU everything must come out the same. Nothing in the folder is changed.

    Args:
        folder: The run's.
        cells: How many cells (a method, a task) are answered again.
        seed: Determines which.
        progress: Called with the name of each cell before it is answered.

    Raises:
        FinLoraError: The folder holds no finished run.
    """
    layout = RunLayout(folder)
    config = read_config(layout.config)
    stored = [asdict(one) for one in read_results(layout.results)]
    again = [asdict(one) for one in all_results(layout, config)]
    different = [
        f"{one['metric']} of {one['method']} on {one['task']}"
        for one, other in zip(stored, again, strict=False)
        if one != other
    ]
    if len(stored) != len(again):
        different.append(f"the number of results, {len(stored)} and {len(again)}")
    workshop = Workshop(layout, config)
    asked = {job.name: arguments_of(job, answer_cell) for job in plan_jobs(layout, config)}
    single = {name: arguments for name, arguments in sorted(asked.items()) if arguments is not None}
    answers, changed = 0, {}
    for name in random.Random(seed).sample(list(single), min(cells, len(single))):
        progress(name)
        predictions, _ = ask(workshop, **single[name])
        before, _ = read_predictions(layout.folder / f"{name}.jsonl")
        answers += len(predictions)
        if count := sum(one != other for one, other in zip(predictions, before, strict=True)):
            changed[name] = count
    return Check(len(stored), different, answers, changed)
