"""Canaries: invented records, of which a coin decides for each whether the bank trains on it.

From how many of them an attacker guesses right follows a lower bound on epsilon that holds with 95 %
confidence, whatever the training did (Steinke, Nasr and Jagielski 2023, arXiv:2305.08846). A bound above what
the accountant says means that the training is broken.
"""

import json
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float64
from scipy.stats import binom

from ...atomic_write import write_text
from ...errors import FinLoraError
from ...tasks.examples import read_records
from ...tasks.task import Example

GUESSED = 2 / 3
"""Share of canaries that the attacker guesses: the upper and the lower third. It is fixed before the audit;
choosing it by the result would make the bound wrong."""
CONFIDENCE = 0.95
FEWEST = 12
LETTERS = "abcdefghijklmnopqrstuvwxyz"
_FORM = 'every line is an object with "context", "target" and "included"'


@dataclass(frozen=True)
class Canary:
    """One invented record."""

    example: Example
    """Its question and answer, random letters that nothing else in the data explains."""
    included: bool
    """Whether it was put among the bank's records."""


@dataclass(frozen=True)
class CanaryResult:
    """What canaries say about epsilon."""

    canaries: int
    """How many there are, included or not."""
    guessed: int
    """About how many the attacker made a guess."""
    correct: int
    """How many guesses were right."""
    epsilon_low: float
    """Epsilon is at least this, with 95 % confidence; 0 where nothing can be said."""


def invent_canaries(count: int, *, seed: int | None = None) -> list[Canary]:
    """Return canaries, each included by its own coin.

    Args:
        count: How many, at least 12.
        seed: Repeats them, for tests; by default the operating system decides.

    Raises:
        FinLoraError: If there are too few for any bound.
    """
    if count < FEWEST:
        raise FinLoraError(f"Fewer than {FEWEST} canaries bound nothing; got {count}.")
    source = random.SystemRandom() if seed is None else random.Random(seed)

    def word(length: int) -> str:
        return "".join(source.choices(LETTERS, k=length))

    return [
        Canary(
            Example(
                f"What is the reference of account {word(8)} {word(8)}? Answer:", word(12), f"canary {i}"
            ),
            source.random() < 0.5,
        )
        for i in range(count)
    ]


def write_canaries(path: Path, canaries: Sequence[Canary]) -> None:
    """Write the list that only the auditor may see; the file appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    records = [
        {"context": one.example.context, "target": one.example.target, "included": one.included}
        for one in canaries
    ]
    write_text(path, "".join(json.dumps(record) + "\n" for record in records))


def read_canaries(path: Path) -> list[Canary]:
    """Read what `write_canaries` wrote.

    Raises:
        FinLoraError: If the file is missing or malformed.
    """
    canaries = []
    for number, (where, record) in enumerate(read_records(path, _FORM)):
        try:
            example = Example(record["context"], record["target"], f"canary {number}")
            included = record["included"]
        except KeyError as error:
            raise FinLoraError(f"{where} lacks {error}; {_FORM}.") from error
        if not isinstance(included, bool):
            raise FinLoraError(f"{where}: included is true or false; {_FORM}.")
        canaries.append(Canary(example, included))
    return canaries


def measure_canaries(
    scores: Float64[np.ndarray, " canary"], included: Bool[np.ndarray, " canary"], *, delta: float
) -> CanaryResult:
    """Guess "in" for the third with the highest scores, "out" for the lowest third, and bound epsilon.

    Args:
        scores: Higher for likelier members, such as base loss minus expert loss.
        included: Which canaries were trained on, each by its own fair coin.
        delta: Of the guarantee.
    """
    each = int(len(scores) * GUESSED) // 2
    order = np.argsort(scores, kind="stable")
    correct = int(included[order[len(scores) - each :]].sum() + (~included[order[:each]]).sum())
    low = lower_bound(len(scores), 2 * each, correct, delta=delta)
    return CanaryResult(len(scores), 2 * each, correct, low)


def lower_bound(canaries: int, guessed: int, correct: int, *, delta: float) -> float:
    """Return the largest epsilon that so many right guesses rule out with 95 % confidence.

    Args:
        canaries: Number of canaries, each included by its own fair coin.
        guessed: Number of guesses, fixed beforehand.
        correct: Number of right ones.
        delta: Of the guarantee.
    """

    def is_ruled_out(epsilon: float) -> bool:
        return chance_of(canaries, guessed, correct, epsilon, delta) < 1 - CONFIDENCE

    if not is_ruled_out(0.0):
        return 0.0
    low, high = 0.0, 1.0
    while is_ruled_out(high):
        low, high = high, 2 * high
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if is_ruled_out(middle) else (low, middle)
    return low


def chance_of(canaries: int, guessed: int, correct: int, epsilon: float, delta: float) -> float:
    """Return the most likely that so many guesses are right against an (epsilon, delta)-private training.

    Corollary 5.4 of the paper: with delta 0 a guess is right at most as often as randomized response is
    honest; delta adds its worst case.
    """
    honest = 1 / (1 + math.exp(-epsilon))
    tail = float(binom.sf(correct - 1, guessed, honest))
    below = np.cumsum(binom.pmf(np.arange(correct - 1, -1, -1), guessed, honest))
    worst = float((below / np.arange(1, correct + 1)).max()) if correct else 0.0
    return min(1.0, tail + 2 * canaries * delta * worst)
