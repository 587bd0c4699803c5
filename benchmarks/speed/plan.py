"""A unit of measurement: the smallest piece of a run that is kept when the run is interrupted."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from .machine import Machine
from .models import Workshop
from .settings import SpeedPlan

Record = dict[str, Any]


@dataclass(frozen=True)
class Bench:
    """What every measurement needs.

    Attributes:
        workshop: Makes the models.
        plan: Sizes of what is timed.
        repeats: How often everything is timed.
        machine: Measured limits.
    """

    workshop: Workshop
    plan: SpeedPlan
    repeats: int
    machine: Machine


@dataclass(frozen=True)
class Unit:
    """One comparison.

    Attributes:
        name: Unique in its part.
        measure: Returns its records.
    """

    name: str
    measure: Callable[[Bench], list[Record]]


def timed(quantity: str, contender: str, seconds: Sequence[float], **about: Any) -> Record:
    """A record of one measurement: what it is about, all raw seconds, and their median."""
    return {
        "quantity": quantity,
        "contender": contender,
        **about,
        "median_seconds": statistics.median(seconds),
        "seconds": list(seconds),
    }


def left_out(reason: str, **about: Any) -> Record:
    """A record that says why something was not measured."""
    return {"quantity": "left out", **about, "reason": reason}
