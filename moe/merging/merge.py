"""Merge experts into one ordinary PEFT adapter: start here.

Every method works on delta W with the experts' own scales (alpha / rank, or alpha / sqrt(rank) for rsLoRA)
multiplied in first; only `linear` does not, and says why it is an approximation. The result has alpha = rank,
so its scale is 1.
"""

import dataclasses
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...experts.adapter import CONFIG_FILE, METADATA_FILE, WEIGHTS_FILE
from ...experts.atomic_write import write_json
from ...experts.errors import FinLoraError
from ...experts.provenance import source_commit
from ...experts.run_folder import RunFolder, open_run
from .adapter_folder import save_updates
from .factored import linear, svd, uniform
from .settings import MergeSettings
from .sparse import dare, dare_ties, ties
from .updates import Merged, SourceExpert, read_sources

Merge = Callable[[Sequence[SourceExpert], Sequence[float], MergeSettings], dict[str, Merged]]

MERGES: dict[str, Merge] = {
    "uniform": uniform,
    "linear": linear,
    "svd": svd,
    "ties": ties,
    "dare": dare,
    "dare_ties": dare_ties,
}
"""Every method that needs no training; those that learn their weights are in `finlora.router`."""

TAKES_RANK = frozenset({"svd", "ties", "dare", "dare_ties"})
"""Methods whose result may be cut to a rank; the others are what they are."""


def merge_experts(
    method: str, folders: Mapping[str, Path], out: Path, settings: MergeSettings | None = None
) -> Path:
    """Merge experts without training and write the adapter's folder.

    Args:
        method: Key of `MERGES`.
        folders: PEFT adapter folder of each expert, by name; the order is that of the weights.
        out: Folder to create; a finished one is never overwritten.
        settings: Weights and what else the method uses; by default `MergeSettings()`.

    Returns:
        The folder: `adapter_config.json`, `adapter_model.safetensors`, `expert.json`.

    Raises:
        FinLoraError: If the method is unknown or cannot merge these experts, the settings do not fit, or the
            folder is finished or holds something else.
    """
    settings = settings or MergeSettings()
    start = time.monotonic()
    if method not in MERGES:
        raise FinLoraError(f"There is no merge {method!r}; choose one of {', '.join(MERGES)}.")
    if settings.rank is not None and method not in TAKES_RANK:
        raise FinLoraError(
            f"{method} has no rank to choose; leave rank out, or use svd, which cuts the weighted sum to one."
        )
    experts = read_sources(folders)
    weights = _weights(experts, settings)
    record = describe_sources(experts) | {
        "merge": {"method": method, "settings": dataclasses.asdict(settings)}
    }
    merged = MERGES[method](experts, weights, settings)
    run = open_run(Path(out), record, result=METADATA_FILE)
    named = dict(zip(folders, weights, strict=True))
    return write_merged(run, merged, record | {"weights": named, "seed": settings.seed}, start=start)


def describe_sources(experts: Sequence[SourceExpert]) -> dict[str, Any]:
    """Return what a record says of the merged experts and of their base."""
    first = experts[0].files
    metadata = [expert.files.metadata or {} for expert in experts]
    revisions = [one["base_revision"] for one in metadata if one.get("base_revision")]
    quantizations = {one.get("quantization") for one in metadata}
    return {
        "base": next((one["base"] for one in metadata if one.get("base")), None)
        or first.config.base_model_name_or_path,
        "base_revision": revisions[0] if revisions else None,
        # Experts trained on different quantizations of one base leave it to the user to choose one.
        **(
            {"quantization": quantizations.pop()}
            if len(quantizations) == 1 and None not in quantizations
            else {}
        ),
        "sources": [{"name": expert.name, "weights_sha256": expert.weights_sha256} for expert in experts],
    }


def write_merged(
    run: RunFolder, merged: Mapping[str, Merged], record: Mapping[str, Any], *, start: float
) -> Path:
    """Write the merged adapter; `expert.json` comes last, so an interrupted merge leaves no result behind.

    Args:
        run: The open folder.
        merged: The merged update of each linear layer.
        record: What determined the result.
        start: When the merge began, on the monotonic clock.

    Returns:
        The folder.
    """
    adapter = run.scratch / "result"
    save_updates({name: one.update for name, one in merged.items()}, record["base"], adapter)
    for name in (WEIGHTS_FILE, CONFIG_FILE):
        os.replace(adapter / name, run.out / name)
    ranks = [one.update.rank for one in merged.values()]
    write_json(
        run.out / METADATA_FILE,
        {
            **record,
            "ranks": {"smallest": min(ranks), "largest": max(ranks)},
            "truncation": truncation_record(merged),
            "seconds": round(time.monotonic() - start, 3),
            "commit": source_commit(),
        },
    )
    run.finish()
    return run.out


def truncation_record(merged: Mapping[str, Merged]) -> dict[str, Any] | None:
    """Return how much cutting to a rank lost, as shares of Frobenius norms; None if nothing was cut."""
    cut = {name: one.truncation for name, one in merged.items() if one.truncation is not None}
    if not cut:
        return None
    shares = {name: one.lost / one.norm if one.norm else 0.0 for name, one in cut.items()}
    worst = max(shares, key=shares.__getitem__)
    lost, norm = (sum(getattr(one, key) ** 2 for one in cut.values()) ** 0.5 for key in ("lost", "norm"))
    return {
        "relative_error": lost / norm if norm else 0.0,
        "largest_relative_error": shares[worst],
        "largest_at": worst,
    }


def _weights(experts: Sequence[SourceExpert], settings: MergeSettings) -> list[float]:
    if not settings.weights:
        return [1 / len(experts)] * len(experts)
    if len(settings.weights) != len(experts):
        raise FinLoraError(
            f"{len(settings.weights)} weights were given for {len(experts)} experts; give one an expert, in "
            "the experts' order, or none for their mean."
        )
    return list(settings.weights)
