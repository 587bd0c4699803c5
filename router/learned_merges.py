"""Merges whose weights are learned from examples; the result is an adapter as every merge writes it."""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from ..experts.adapter import METADATA_FILE
from ..experts.base_model import Base
from ..experts.provenance import examples_sha256
from ..experts.run_folder import open_run
from ..experts.tasks.task import Example
from ..moe.bank import ExpertBank
from ..moe.merging.factored import weighted_sum
from ..moe.merging.merge import describe_sources, write_merged
from ..moe.merging.updates import read_sources
from .cat import learn_cat
from .lorahub import learn_lorahub
from .merge_settings import CatSettings, LoraHubSettings

LEARNED_MERGES: dict[str, Callable[..., tuple[Tensor, dict[str, Any]]]] = {
    "cat": learn_cat,
    "lorahub": learn_lorahub,
}
"""Every method that learns its weights, by the `method` of its settings."""


def merge_by_learning(
    folders: Mapping[str, Path],
    base: Base,
    examples_by_task: Mapping[str, Sequence[Example]],
    out: Path,
    settings: CatSettings | LoraHubSettings,
    *,
    progress: bool = True,
) -> Path:
    """Learn how much of each expert is wanted, and write their weighted sum as one adapter.

    The sum is exact, so its rank is the sum of the experts' ranks, and it answers as the mixture with these
    constant weights does.

    Args:
        folders: PEFT adapter folder of each expert, by name.
        base: The base that they were trained on.
        examples_by_task: The examples to learn from; a few of each task.
        out: Folder to create, or that of the same unfinished merge; a finished one is never overwritten.
        settings: Those of the wanted method.
        progress: Whether to show a progress bar.

    Returns:
        The folder: `adapter_config.json`, `adapter_model.safetensors`, `expert.json`.

    Raises:
        FinLoraError: If the experts cannot be merged or do not fit the base, no example fits the base, or the
            folder is finished or holds something else.
    """
    start = time.monotonic()
    experts = read_sources(folders)
    bank = ExpertBank.from_folders(folders, base)
    record = describe_sources(experts) | {
        "base": base.name,
        "base_revision": base.revision,
        "quantization": base.quantization,
        "data_sha256": {task: examples_sha256(rows) for task, rows in examples_by_task.items()},
        "merge": {"method": settings.method, "settings": settings.record()},
    }
    run = open_run(Path(out), record, result=METADATA_FILE)
    weights, learning = LEARNED_MERGES[settings.method](
        base, bank, examples_by_task, run, settings, progress=progress
    )
    rows = weights.expand(bank.module_count, -1).tolist()
    merged = weighted_sum(experts, dict(zip(bank.module_names, rows, strict=True)))
    learned = {
        "weights": {name: weights[:, index].tolist() for index, name in enumerate(folders)},
        "modules": list(bank.module_names) if len(weights) > 1 else None,
        "seed": settings.seed,
        "learning": learning,
    }
    return write_merged(run, merged, record | learned, start=start)
