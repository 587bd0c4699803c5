"""Experts of random weights for a base, thousands of them in a minute: load tests need numbers, not answers.

S-LoRA's load test serves dummy adapters too, whose ranks cycle through a list (arXiv:2311.03285, section 7).
"""

import os
from collections.abc import Sequence
from pathlib import Path

import torch
from peft import LoraConfig
from safetensors.torch import save_file

from ...experts.adapter import CONFIG_FILE, WEIGHTS_FILE, sort_targets
from ...experts.base_model import Base
from ...moe.bank import PEFT_PREFIX
from ...moe.serving.expert_check import linear_sizes

RANKS = (8, 16, 32)
UPDATE_SIZE = 0.02
"""Standard deviation of B's values: with A's of 1 / sqrt(d_in) and scale 2, the update of a layer is about a
tenth of its input, so answers differ from the base's and stay finite."""


def make_random_experts(
    base: Base,
    folder: Path,
    count: int,
    *,
    ranks: Sequence[int] = RANKS,
    distinct: int | None = None,
    seed: int = 42,
    name: str = "expert-{:05}",
) -> dict[str, Path]:
    """Write PEFT adapter folders that adapt every linear layer of the decoder blocks.

    Args:
        base: What they fit.
        folder: Folder for theirs; made if missing. None of theirs may exist.
        count: Number of experts.
        ranks: Expert i has rank `ranks[i % len(ranks)]`.
        distinct: Only so many experts have files of their own; expert i has hard links to the files of expert
            `i % distinct`. A multiple of the number of ranks keeps their cycle. None gives each its own.
        seed: Equal seeds give equal files.
        name: Format of the names, with the expert's number.

    Returns:
        Folder of each expert, by name.
    """
    sizes = linear_sizes(base)
    generator = torch.Generator().manual_seed(seed)
    folder.mkdir(parents=True, exist_ok=True)
    configs = {rank: _config(base, rank, folder) for rank in set(ranks)}
    made: list[Path] = []
    for number in range(count):
        target = folder / name.format(number)
        target.mkdir()
        if distinct is not None and number >= distinct:
            for file in (CONFIG_FILE, WEIGHTS_FILE):
                os.link(made[number % distinct] / file, target / file)
        else:
            rank = ranks[number % len(ranks)]
            (target / CONFIG_FILE).write_text(configs[rank], encoding="utf-8")
            tensors = {}
            for module, (d_in, d_out) in sizes.items():
                down = torch.randn(rank, d_in, generator=generator) / d_in**0.5
                up = torch.randn(d_out, rank, generator=generator) * UPDATE_SIZE
                tensors[f"{PEFT_PREFIX}{module}.lora_A.weight"] = down
                tensors[f"{PEFT_PREFIX}{module}.lora_B.weight"] = up
            save_file(tensors, target / WEIGHTS_FILE)
        made.append(target)
    return {path.name: path for path in made}


def _config(base: Base, rank: int, folder: Path) -> str:
    """What PEFT itself writes for such an adapter."""
    LoraConfig(
        task_type="CAUSAL_LM",
        base_model_name_or_path=base.name,
        r=rank,
        lora_alpha=2 * rank,
        target_modules=sorted({module.rpartition(".")[2] for module in linear_sizes(base)}),
        inference_mode=True,
    ).save_pretrained(str(folder))
    sort_targets(folder)
    file = folder / CONFIG_FILE
    text = file.read_text(encoding="utf-8")
    file.unlink()
    return text
