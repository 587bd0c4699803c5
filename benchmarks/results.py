"""The numbers of a benchmark run on disk: one flat record a number, as JSON lines. Computes nothing."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from ..experts.atomic_write import write_text
from ..experts.errors import FinLoraError

IN_DISTRIBUTION = "in_distribution"
"""The protocol of results that name none."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """One number that a benchmark run found.

    Attributes:
        method: Who answered, for example `base`, `expert:fpb` or `xlora`.
        task: Which task was answered; `macro` is the mean over all tasks of the run.
        task_version: Version of the task's prompt, data and scorer; None for `macro`.
        metric: `score` (0 to 100), `difference:<method>` (points), `ratio:<method>` (percent), or a cost;
            of a replayed rule also `regret:<rule>` (points) and `right_expert` (percent).
        value: The number.
        low: Lower end of the 95 % interval, None where the number is a plain measurement.
        high: Upper end of the 95 % interval.
        n: Examples behind the number.
        seed: Router seed, None for a mean over seeds and for methods that have none.
        seconds: Time it took to answer the n examples.
        peak_bytes: Largest memory of the process (CPU) or of the device (CUDA) while answering.
        commit: Commit of the code that answered.
        config_hash: Hash of the run's resolved configuration.
        protocol: How it was asked.
        p_value: Of no difference, two-sided.
        p_adjusted: The same after Holm's correction: over tasks for a difference on one task, over the
            methods compared for a difference of macro scores.
    """

    method: str
    task: str
    metric: str
    value: float
    task_version: int | None = None
    low: float | None = None
    high: float | None = None
    n: int | None = None
    seed: int | None = None
    seconds: float | None = None
    peak_bytes: int | None = None
    commit: str = ""
    config_hash: str = ""
    protocol: str = IN_DISTRIBUTION
    p_value: float | None = None
    p_adjusted: float | None = None


def json_lines(records: Iterable[dict[str, Any]]) -> str:
    """Records as text, one JSON object a line."""
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """Read a file with one JSON object a line.

    Raises:
        FinLoraError: The file is missing, or a line is not a JSON object.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except OSError as error:
        raise FinLoraError(f"Cannot read {path}: {error.strerror or error}.") from error
    records = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError as error:
            raise FinLoraError(f"{path}, line {number}: not JSON ({error}).") from error
        if not isinstance(record, dict):
            raise FinLoraError(
                f"{path}, line {number}: a JSON object is needed, this is {type(record).__name__}."
            )
        records.append(record)
    return records


def write_results(path: Path, results: Iterable[Result]) -> None:
    """Write all numbers of a run, replacing an older file in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json_lines(asdict(result) for result in results))


def write_table(path: Path, results: Iterable[Result]) -> None:
    """Write all numbers as comma-separated values with a line of headers."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [field.name for field in fields(Result)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(result) for result in results)
    write_text(path, text.getvalue())


def read_results(path: Path) -> list[Result]:
    """Read what `write_results` wrote.

    Raises:
        FinLoraError: The file is missing or malformed, or a record has missing or unknown fields.
    """
    known = {field.name for field in fields(Result)}
    results = []
    for number, record in enumerate(read_json_lines(path), start=1):
        if unknown := sorted(record.keys() - known):
            raise FinLoraError(f"{path}, record {number}: unknown fields {', '.join(unknown)}.")
        try:
            results.append(Result(**record))
        except TypeError as error:
            raise FinLoraError(f"{path}, record {number}: {error}.") from error
    return results


class ResultIndex:
    """Results of one run, found by what they are about."""

    def __init__(self, results: Iterable[Result]):
        self._by_key = {(one.method, one.task, one.metric, one.seed, one.protocol): one for one in results}

    def find(
        self,
        method: str,
        task: str,
        metric: str = "score",
        seed: int | None = None,
        protocol: str = IN_DISTRIBUTION,
    ) -> Result | None:
        """The result, or None if the run has no such number."""
        return self._by_key.get((method, task, metric, seed, protocol))

    def get(
        self,
        method: str,
        task: str,
        metric: str = "score",
        seed: int | None = None,
        protocol: str = IN_DISTRIBUTION,
    ) -> Result:
        """The result.

        Raises:
            FinLoraError: The run has no such number.
        """
        result = self.find(method, task, metric, seed, protocol)
        if result is None:
            raise FinLoraError(
                f"These results have no {metric} of {method} on {task}; run the benchmark to its end."
            )
        return result
