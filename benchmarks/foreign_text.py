"""Text that belongs to no task: what adapters cost there (forgetting), and whether a null expert takes over.

Measured is the mean next-token loss of each text, in nats a token. A model that keeps what its base can do
has the base's loss.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from ..experts.atomic_write import write_json
from ..experts.encoding import encode_prompts, token_limit
from ..moe.mixture import MixtureForCausalLM
from .results import Result
from .statistics import Bootstrap, Interval

FOREIGN = "foreign_text"
TEXTS = (
    "The ferry leaves the island twice a day, unless the wind turns to the north.",
    "Bake the bread for forty minutes and let it cool before you cut it.",
    "In spring the storks return to the same chimneys on which they were born.",
    "The museum keeps the letters of the painter in a room without windows.",
    "She learned to play the cello at the age of fifty and never regretted it.",
    "A good tent keeps out rain, but no tent keeps out a curious bear.",
    "The second movement is slower than the first and ends in a long silence.",
    "When the river froze, the children walked to school on the ice.",
    "He painted the door green, the colour of the boats in the harbour.",
    "Most of the stars that we see at night are larger than the sun.",
    "The recipe asks for two lemons, a spoon of honey and a little patience.",
    "After the storm the road to the village was closed for three weeks.",
    "The goalkeeper caught the ball with one hand and fell into the mud.",
    "Old maps show a lake where the railway station stands today.",
    "The doctor told him to walk an hour a day and to sleep more.",
    "Its leaves turn red in October and fall after the first frost.",
    "The orchestra tuned its instruments while the hall slowly filled.",
    "Nobody knows who carved the stone heads above the gate.",
    "The cat sleeps on the warm roof of the bakery until noon.",
    "You can reach the summit by a path that begins behind the church.",
    "The novel tells of two sisters who share a house and never speak.",
    "Bees find their way home by the position of the sun.",
    "The carpenter measured twice and cut once, as his father had.",
    "In the desert the nights are cold and the days are without shade.",
)
"""Invented sentences about nothing that a filing is about."""


@dataclass(frozen=True)
class ForeignReading:
    """How a model read the texts.

    Attributes:
        losses: Mean next-token loss of each text, in nats.
        abstention: Mean share of the scalings, in percent, that goes to no expert; None for what has no null
            expert.
        abstention_on_tasks: The same on questions that experts are for.
    """

    losses: list[float]
    abstention: float | None
    abstention_on_tasks: float | None = None


@torch.no_grad()
def read_foreign_text(
    model: torch.nn.Module, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str] = TEXTS
) -> ForeignReading:
    """Let a model read texts, one by one.

    Args:
        model: A causal language model.
        tokenizer: Its tokenizer.
        texts: What to read; none may be longer than the model takes.
    """
    losses, shares = [], []
    device = next(model.parameters()).device
    limit = token_limit(model.config)  # pyright: ignore[reportArgumentType]
    for ids in encode_prompts(tokenizer, texts):
        tokens = torch.tensor([ids[:limit]], device=device)
        logits = model(input_ids=tokens, use_cache=False).logits[0, :-1].float()
        losses.append(float(torch.nn.functional.cross_entropy(logits, tokens[0, 1:])))
        if isinstance(model, MixtureForCausalLM) and model.last_scalings is not None:
            shares.append(float(model.last_scalings.float().sum(dim=-1).mean()))
    has_null_expert = getattr(getattr(getattr(model, "router", None), "settings", None), "null_expert", False)
    return ForeignReading(losses, 100 * (1 - float(np.mean(shares))) if has_null_expert else None)


def write_reading(path: Path, reading: ForeignReading) -> None:
    """Write it as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, asdict(reading))


def foreign_results(
    readings: Mapping[str, Sequence[Path]], *, seed: int, resamples: int, config_hash: str
) -> Iterator[Result]:
    """Mean losses, differences to the base, and abstention, with intervals over texts and router seeds.

    Args:
        readings: Files of each method, one for each of its seeds; `base` among them.
        seed: Seed of the bootstrap.
        resamples: Draws of the bootstrap.
        config_hash: Put into every record.
    """
    read: dict[str, list[dict[str, Any]]] = {
        name: [json.loads(path.read_text(encoding="utf-8")) for path in paths]
        for name, paths in readings.items()
    }
    losses = {name: {FOREIGN: np.array([one["losses"] for one in rows])} for name, rows in read.items()}
    count = losses["base"][FOREIGN].shape[1]
    bootstrap = Bootstrap(losses, {FOREIGN: [str(i) for i in range(count)]}, resamples=resamples, seed=seed)
    for name, rows in read.items():
        numbers = {"loss": bootstrap.score(name, FOREIGN)}
        if name != "base":
            numbers["loss_difference:base"] = bootstrap.difference(name, "base", FOREIGN)
        for metric in ("abstention", "abstention_on_tasks"):
            if shares := [row[metric] for row in rows if row[metric] is not None]:
                numbers[metric] = Interval(float(np.mean(shares)), min(shares), max(shares))
        for metric, interval in numbers.items():
            yield Result(
                method=name,
                task=FOREIGN,
                metric=metric,
                value=interval.value,
                low=interval.low,
                high=interval.high,
                n=count,
                config_hash=config_hash,
            )
