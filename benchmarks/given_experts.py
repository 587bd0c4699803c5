"""Experts that somebody has already: a benchmark takes them in place of those that it would train."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
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


def install_given(layout: RunLayout, given: Mapping[str, Path], load: Callable[[], Base]) -> None:
    """Copy the experts to where the run would have trained them; those that are there already stay.

    Args:
        layout: The run's folder.
        given: Task -> folder of its expert.
        load: Loads the base that they must have been trained on; called only if one is to be copied.

    Raises:
        FinLoraError: One was trained on another base.
    """
    missing = [task for task in given if not is_finished(layout.expert(task), result=METADATA_FILE)]
    if not missing:
        return
    base = load()
    for task in missing:
        target, folder = layout.expert(task), given[task]
        expert = read_expert(folder)
        expert.check_fits(base)
        unfinished = target.with_name(f".{task}.unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        for name in (CONFIG_FILE, WEIGHTS_FILE):
            shutil.copyfile(folder / name, unfinished / name)
        write_json(unfinished / METADATA_FILE, {**(expert.metadata or {}), "task": task})
        os.replace(unfinished, target)
