"""Experts that somebody has already: a benchmark takes them in place of those that it would train."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..experts.adapter import CONFIG_FILE, METADATA_FILE, WEIGHTS_FILE, read_expert
from ..experts.atomic_write import write_json
from ..experts.base_model import Base
from ..experts.errors import FinLoraError
from ..experts.run_folder import is_finished
from ..moe.bank import hash_tensors
from .layout import RunLayout


def hash_given(given: Mapping[str, Path], tasks: Sequence[str]) -> dict[str, str]:
    """Read the experts and return the SHA-256 of each one's weights, by which a run knows them again.

    Args:
        given: Task -> folder of its expert, trained by anyone.
        tasks: The tasks of the run.

    Raises:
        FinLoraError: One cannot be read, or is for a task that the run does not have.
    """
    for task in given:
        if task not in tasks:
            raise FinLoraError(
                f"An expert is given for {task!r}, which is no task of this run; its tasks are "
                f"{', '.join(tasks)}."
            )
    return {task: hash_tensors(read_expert(given[task]).tensors) for task in sorted(given)}


def install_given(layout: RunLayout, given: Mapping[str, Path], base: Base) -> None:
    """Copy the experts to where the run would have trained them; those that are there already stay.

    Args:
        layout: The run's folder.
        given: Task -> folder of its expert.
        base: What they must have been trained on.

    Raises:
        FinLoraError: One was trained on another base.
    """
    for task, folder in given.items():
        target = layout.expert(task)
        if is_finished(target, result=METADATA_FILE):
            continue
        expert = read_expert(folder)
        expert.check_fits(base)
        unfinished = target.with_name(f".{task}.unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        for name in (CONFIG_FILE, WEIGHTS_FILE):
            shutil.copyfile(folder / name, unfinished / name)
        write_json(unfinished / METADATA_FILE, {**(expert.metadata or {}), "task": task})
        os.replace(unfinished, target)
