"""Seconds of pieces of work that take turns, and of the steps of a generation."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from tqdm import tqdm
from transformers import StoppingCriteria, StoppingCriteriaList

from ...experts.errors import FinLoraError
from .traffic import Traffic, TrafficCounter

FEWEST_TIMES = 2
"""Times that a slow contender is timed at least, if that many were asked for."""


def synchronize() -> None:
    """Wait for the device, which on CUDA runs behind the program."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def seconds_of(do: Callable[[], Any]) -> float:
    """Wall-clock time of a piece of work, the device's included."""
    synchronize()
    start = time.perf_counter()
    do()
    synchronize()
    return time.perf_counter() - start


def take_turns(
    work: Mapping[str, Callable[[], float]], repeats: int, *, patience: float | int, label: str
) -> dict[str, list[float]]:
    """Do every piece of work `repeats` times in turn, so that a machine that slows down slows all of them.

    Args:
        work: Each piece, warmed up, by name; returns its seconds.
        repeats: How often.
        patience: Seconds after which a piece is done no further, but at least `FEWEST_TIMES` times.
        label: What the progress bar says.

    Returns:
        Seconds of each time, by name.
    """
    times: dict[str, list[float]] = {name: [] for name in work}
    with tqdm(total=repeats * len(work), desc=label, unit="run", leave=False) as bar:
        for turn in range(repeats):
            for name, do in work.items():
                if turn < FEWEST_TIMES or sum(times[name]) < patience:
                    times[name].append(do())
                bar.update()
    return times


class StepClock(StoppingCriteria):
    """Notes when each step of `generate` ends; it never stops one."""

    def __init__(self, at_step: Callable[[], None] = lambda: None):
        """Also call `at_step` at the end of every step."""
        self.stamps: list[tuple[float, int]] = []
        self.at_step = at_step

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> Any:
        """Note the time and how long the text is now; some modes show one sequence of the batch at a time."""
        synchronize()
        self.stamps.append((time.perf_counter(), input_ids.shape[1]))
        self.at_step()
        return torch.zeros(input_ids.shape[0], dtype=torch.bool, device=input_ids.device)


@dataclass
class Generations:
    """Generations of one contender over one prompt.

    The prefill lasts until the first new token is chosen; decoding lasts from there to the last one. Both
    come out of the same generation, so nothing is inferred from a difference of two.

    Attributes:
        model: Has `generate`.
        prompt: Token ids (batch, token), without padding.
        steps: Decode steps after the prefill.
        prefill_seconds: Of each generation.
        decode_seconds: Of all steps together, of each generation.
        traffic: What one step reads and computes, counted in the warm-up.
    """

    model: Any
    prompt: torch.Tensor
    steps: int
    prefill_seconds: list[float] = field(default_factory=list)
    decode_seconds: list[float] = field(default_factory=list)
    traffic: Traffic = field(default_factory=Traffic)

    def warm_up(self) -> None:
        """Generate once untimed, counting what the steps read."""
        with TrafficCounter(self.model) as counter:
            clock = StepClock(counter.end_step)
            generate(self.model, self.prompt, 1 + self.steps, clock)
        self.traffic = counter.per_step(self.steps)

    def run(self) -> float:
        """Generate once and return the seconds of all of it."""
        clock = StepClock()
        synchronize()
        start = time.perf_counter()
        generate(self.model, self.prompt, 1 + self.steps, clock)
        (first, first_length), *_, (last, last_length) = clock.stamps
        if last_length - first_length != self.steps:
            raise FinLoraError(
                f"A {type(self.model).__name__} generated {last_length - first_length} tokens after the "
                f"first where {self.steps} were asked for; its speed was not measured."
            )
        self.prefill_seconds.append(first - start)
        self.decode_seconds.append(last - first)
        return last - start


def proposals_of(model: Any) -> dict[str, int]:
    """How the proposals of the last generation fared; nothing for a model that makes none."""
    draft = getattr(model, "last_draft", None)
    return {} if draft is None else {key: getattr(draft, key) for key in ("passes", "proposed", "accepted")}


def generate(model: Any, prompt: torch.Tensor, new_tokens: int, clock: StepClock | None = None) -> Any:
    """Generate greedily; returns the new token ids (batch, new token)."""
    with torch.no_grad():
        output = model.generate(
            input_ids=prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=new_tokens,
            do_sample=False,
            pad_token_id=0,
            stopping_criteria=StoppingCriteriaList([] if clock is None else [clock]),
        )
    return output[:, prompt.shape[1] :]
