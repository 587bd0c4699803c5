"""How fast a mixture generates and its router trains, beside PEFT, on the same weights in one process.

All contenders of a comparison take turns, so that a machine that slows down slows all of them; reported are
medians, and ratios of medians.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from ..experts.atomic_write import write_text
from ..experts.base_model import EMBEDDED_BASE, load_base
from ..experts.errors import FinLoraError
from ..router.settings import XLoRASettings
from ..router.train import new_mixture
from .results import json_lines
from .speed_models import (
    contenders,
    peft_xlora,
    random_prompt,
    save_base,
    save_experts,
)
from .speed_shape import SpeedShape

LENGTHS = ((256, 64), (1024, 128))
"""Prompt and answer tokens of the generations that are timed."""
EXPERT_COUNTS = (2, 8, 64)
"""Numbers of experts of mixtures whose decoding is timed."""
TRAINING_TOKENS = (4, 256)
"""Batch rows and tokens a row of one training step."""


def benchmark_speed(folder: Path, shape: SpeedShape, *, repeats: int) -> list[dict[str, Any]]:
    """Run all comparisons and write `speed.jsonl` and `speed.md`.

    Args:
        folder: New folder for results, and for the random base and experts.
        shape: Shape of both.
        repeats: How often everything is timed, after one round that does not count.

    Returns:
        One record a measurement.

    Raises:
        FinLoraError: If the folder exists, or there are no repeats.
    """
    if folder.exists():
        raise FinLoraError(f"{folder} exists already; choose another --name, nothing was overwritten.")
    if repeats < 1:
        raise FinLoraError(f"repeats must be at least 1, got {repeats}.")
    work = folder / "models"
    base_folder = save_base(shape, work / "base", load_base(EMBEDDED_BASE, "none"))
    records = [
        *_generation(base_folder, work, shape, repeats),
        *_expert_counts(base_folder, work, shape, repeats),
        *_training(base_folder, work, shape, repeats),
    ]
    about = {"shape": asdict(shape), "repeats": repeats, "threads": torch.get_num_threads()}
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    records = [about | {"device": device} | record for record in records]
    write_text(folder / "speed.jsonl", json_lines(records))
    write_text(folder / "speed.md", speed_table(records))
    return records


def _generation(base_folder: Path, work: Path, shape: SpeedShape, repeats: int) -> list[dict[str, Any]]:
    models = contenders(base_folder, work, shape.rank)
    records = []
    for prompt_tokens, new_tokens in LENGTHS:
        prompt = random_prompt(shape.vocabulary, prompt_tokens)
        tokens: dict[str, list[int]] = {}

        generations = {
            name: partial(_remember, tokens, name, partial(_generate, model, prompt, new_tokens))
            for name, model in models.items()
        }
        times = take_turns(generations, repeats)
        if tokens["exact"] != tokens["peft_xlora"]:
            raise FinLoraError(
                "The mixture and PEFT's X-LoRA generated different tokens; nothing was written."
            )
        lengths = {"prompt_tokens": prompt_tokens, "new_tokens": new_tokens}
        records += _records("generate", times, lengths)
    return records


def _expert_counts(base_folder: Path, work: Path, shape: SpeedShape, repeats: int) -> list[dict[str, Any]]:
    base = load_base(str(base_folder), "none")
    prompt, new_tokens = random_prompt(shape.vocabulary, 32), 64
    makers = {}
    for count in EXPERT_COUNTS:
        folders = save_experts(base.model, count, shape.rank, work / "experts", base.name)
        for top_k in (None, 2):
            mixture = new_mixture(base, folders, XLoRASettings(top_k=top_k), seed=0)
            name = f"{count} experts, " + ("all" if top_k is None else f"top {top_k}")
            makers[name] = partial(_generate, mixture, prompt, new_tokens)
    times = take_turns(makers, repeats)
    return _records("decode by number of experts", times, {"prompt_tokens": 32, "new_tokens": new_tokens})


def _training(base_folder: Path, work: Path, shape: SpeedShape, repeats: int) -> list[dict[str, Any]]:
    steps: dict[str, Callable[[], Any]] = {}
    rows, length = TRAINING_TOKENS
    tokens = torch.randint(3, shape.vocabulary, (rows, length), generator=torch.Generator().manual_seed(0))
    for quantization in ("none", "int8", "nf4"):
        base = load_base(str(base_folder), quantization)
        folders = save_experts(base.model, 8, shape.rank, work / "experts", base.name)
        mixture = new_mixture(base, folders, XLoRASettings(), seed=0)
        mixture.router.requires_grad_(True)
        hidden = mixture.scaling_hidden_states(tokens)
        steps[f"router step, {quantization}"] = partial(_step, mixture, tokens)
        steps[f"router step, {quantization}, stored hidden states"] = partial(
            _step, mixture, tokens, scaling_hidden_states=hidden
        )
        if quantization == "none":
            peft = peft_xlora(mixture, work / "peft_xlora", base_folder)
            classifier: Any = peft.get_submodule("base_model.internal_xlora_classifier")
            steps["router step, PEFT X-LoRA"] = partial(_step, peft.train(), tokens, trained=classifier)
    return _records("router training", take_turns(steps, repeats), {"tokens": rows * length})


def _remember(results: dict[str, Any], name: str, do: Callable[[], Any]) -> None:
    results[name] = do()


def _step(model: Any, tokens: torch.Tensor, *, trained: nn.Module | None = None, **inputs: Any) -> None:
    parameters = list((model.router if trained is None else trained).parameters())
    optimizer = torch.optim.AdamW(parameters, lr=1e-4)
    model(input_ids=tokens, labels=tokens, **inputs).loss.backward()
    optimizer.step()
    optimizer.zero_grad()


def _generate(model: Any, prompt: torch.Tensor, new_tokens: int) -> list[int]:
    with torch.no_grad():
        output = model.generate(
            input_ids=prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=new_tokens,
            min_new_tokens=new_tokens,
            do_sample=False,
            pad_token_id=0,
        )
    return output[0, prompt.shape[1] :].tolist()


def take_turns(work: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, list[float]]:
    """Time every piece of work `repeats` times in turn, after one round that does not count.

    Returns:
        Seconds of each time, by name.
    """
    times: dict[str, list[float]] = {name: [] for name in work}
    for turn in tqdm(range(repeats + 1), desc="turns", unit="turn"):
        for name, do in work.items():
            start = time.perf_counter()
            do()
            if turn:
                times[name].append(time.perf_counter() - start)
    return times


def _records(
    comparison: str, times: Mapping[str, list[float]], work_done: Mapping[str, int]
) -> list[dict[str, Any]]:
    return [
        {
            "comparison": comparison,
            **work_done,
            "contender": name,
            "median_seconds": statistics.median(seconds),
            "seconds": seconds,
        }
        for name, seconds in times.items()
    ]


def speed_table(records: list[dict[str, Any]]) -> str:
    """The measurements as Markdown: seconds, spread, and how many times as long as the quickest."""
    lines = []
    for (comparison, *lengths), group in groupby(records, key=_work):
        rows = list(group)
        quickest = min(row["median_seconds"] for row in rows)
        sizes = f", {lengths[0]} prompt tokens and {lengths[1]} new ones" if None not in lengths else ""
        lines += ["", f"## {comparison}{sizes}", ""]
        lines += ["| Contender | Median seconds | Smallest to largest | Times the quickest |"]
        lines += ["| :-- | --: | --: | --: |"]
        lines += [
            f"| {row['contender']} | {row['median_seconds']:.3f} | {min(row['seconds']):.3f} to "
            f"{max(row['seconds']):.3f} | {row['median_seconds'] / quickest:.2f} |"
            for row in rows
        ]
    first = records[0]
    head = (
        f"# Speed\n\nRandom weights of shape {first['shape']}, {first['device']}, "
        f"{first['threads']} threads, "
        f"{first['repeats']} repeats in turn."
    )
    return "\n".join([head, *lines]) + "\n"


def _work(record: Mapping[str, Any]) -> tuple[str, int | None, int | None]:
    return record["comparison"], record.get("prompt_tokens"), record.get("new_tokens")
