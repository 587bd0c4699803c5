"""The records of a run, found by what they are about, and the numbers that are computed from them."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from .contenders import CONTENDERS, REFERENCE
from .machine import Machine, machine_of
from .plan import Record


@dataclass(frozen=True)
class Spread:
    """A number and how far it moved.

    Attributes:
        value: From medians.
        low: Smallest of the repeats.
        high: Largest.
    """

    value: float
    low: float
    high: float

    def text(self, form: str = ".2f") -> str:
        """The number with its range, such as `0.51 (0.49 to 0.52)`."""
        return f"{self.value:{form}} ({self.low:{form}} to {self.high:{form}})"


def spread(values: Sequence[float]) -> Spread:
    """Median and range of repeats."""
    return Spread(statistics.median(values), min(values), max(values))


def rate(seconds: Sequence[float], amount: float | int = 1) -> Spread:
    """Amount done a second: the median of the seconds turned round, with its range."""
    return Spread(amount / statistics.median(seconds), amount / max(seconds), amount / min(seconds))


def times_as_fast(seconds: Sequence[float], reference: Sequence[float]) -> Spread:
    """How many times as fast as the reference something is: ratio of medians, and range over the turns.

    In one turn both ran close together in time, so the range of the turns' ratios leaves out what slowed
    both. A contender that was timed fewer times has fewer turns.
    """
    turns = [other / own for own, other in zip(seconds, reference, strict=False)]
    return Spread(statistics.median(reference) / statistics.median(seconds), min(turns), max(turns))


class Measurements:
    """All records of a run.

    Attributes:
        records: As they were written.
    """

    def __init__(self, records: Iterable[Record]):
        """Index records."""
        self.records = list(records)

    @cached_property
    def machine(self) -> Machine:
        """Measured limits of the machine."""
        return machine_of(self.all("limit"))

    def all(self, quantity: str, **about: Any) -> list[Record]:
        """Records of a quantity that agree with everything given."""
        return [
            record
            for record in self.records
            if record["quantity"] == quantity
            and all(record.get(key) == value for key, value in about.items())
        ]

    def find(self, quantity: str, contender: str, **about: Any) -> Record | None:
        """The first such record, or None."""
        return next(iter(self.all(quantity, contender=contender, **about)), None)

    def against(self, record: Record, reference: str = REFERENCE, *ignored: str) -> Spread | None:
        """How many times as fast as a reference in the same comparison; None if that was not measured.

        Args:
            record: Of a timed contender.
            reference: The other contender.
            *ignored: Fields in which the reference may differ.
        """
        keys = {"part", "unit", "batch", "prompt_tokens", "experts", "rank"} - set(ignored)
        about = {key: record[key] for key in keys if key in record}
        other = self.find(record["quantity"], reference, **about)
        return None if other is None else times_as_fast(record["seconds"], other["seconds"])

    def bound(self, record: Record) -> float:
        """Seconds that a decode step cannot stay below on this machine."""
        return self.machine.bound(sum(record["read_bytes"].values()), record["flops"])

    def ceiling(self, record: Record) -> float | None:
        """Times as fast as one LoRA at most, if both ran at their bounds; None if that was not measured."""
        about = {key: record[key] for key in ("part", "unit", "batch", "prompt_tokens")}
        other = self.find("decode", REFERENCE, **about)
        return None if other is None else self.bound(other) / self.bound(record)


def tokens_per_second(record: Record) -> Spread:
    """New tokens of all batch rows a second, of a record of decode steps."""
    return rate(record["seconds"], record["batch"])


def values_of(records: Iterable[Record], key: str) -> list[Any]:
    """The different values of a field, in the order in which they come."""
    return list(dict.fromkeys(record[key] for record in records))


def in_table_order(records: Iterable[Record]) -> list[Record]:
    """Records in the order of the table of contenders."""
    order = list(CONTENDERS)
    return sorted(records, key=lambda record: order.index(record["contender"]))
