"""Records of a load test, found by what they are about, and the ratios that claims stand on."""

from collections.abc import Iterable, Sequence
from typing import Any

from .ratios import Estimate, average, ratio

Record = dict[str, Any]
THROUGHPUT = "throughput"
BY_PROCESSOR = "requests_per_cpu_second"


class Records:
    """All records of a run."""

    def __init__(self, records: Iterable[Record]):
        """Keep them in the order in which they were measured."""
        self.records = list(records)

    def of(self, part: str, **about: Any) -> list[Record]:
        """Records of a part that agree with everything given."""
        return [
            record
            for record in self.records
            if record["part"] == part and all(record.get(key) == value for key, value in about.items())
        ]

    def values(self, part: str, key: str, **about: Any) -> list[Any]:
        """Different values of a field, in the order in which they come."""
        return list(dict.fromkeys(record[key] for record in self.of(part, **about)))

    def numbers(self, part: str, number: str, **about: Any) -> list[float]:
        """A number of each turn, in the order of turns; `first_token.p50` reaches into a field."""
        found = sorted(self.of(part, **about), key=lambda record: record["turn"])
        return [value_of(record, number) for record in found]

    def ratio(
        self, part: str, number: str, above: dict[str, Any], below: dict[str, Any], **about: Any
    ) -> Estimate | None:
        """Ratio of two contenders of one comparison, turn by turn; None if one was not measured."""
        tops = self.numbers(part, number, **about, **above)
        bottoms = self.numbers(part, number, **about, **below)
        if not tops or len(tops) != len(bottoms):
            return None
        return ratio(tops, bottoms)

    def mean(self, part: str, number: str, **about: Any) -> Estimate | None:
        """Mean over turns; None if it was not measured."""
        found = self.numbers(part, number, **about)
        return average(found) if found else None


def value_of(record: Record, number: str) -> float:
    """A number of a record; NaN if there is none, as the latency of a server that finished nothing."""
    value: Any = record
    for key in number.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return float("nan") if value is None else float(value)


def texts(estimates: Sequence[Estimate | None], form: str = ".2f") -> list[str]:
    """Numbers with intervals, for a table's cells."""
    return ["-" if one is None else one.text(form) for one in estimates]
