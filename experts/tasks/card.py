"""What a data card says about the data of a task. Knows no task."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class PublishedFile:
    """A file or hub split that a data set was published as.

    Attributes:
        name: As its publisher names it.
        rows: Examples, table rows or answered cells of the whole file.
        suffix: Of a local copy, such as ".jsonl"; empty for a split on the hub.
        sha256: Of the whole file where known.
    """

    name: str
    rows: int
    suffix: str = ".jsonl"
    sha256: str | None = None


@dataclass(frozen=True)
class Fault:
    """Something wrong with published data, and what FinLoRA does about it."""

    found: str
    handling: str


@dataclass(frozen=True, kw_only=True)
class Card:
    """The data card of a task.

    Attributes:
        files: The published files that hold the task, with the rows of the whole files.
        labels: How often each label is the right answer in the published test file; empty for free answers.
        faults: What is wrong, and what is corrected and how.
        notes: What else a reader of scores should know.
    """

    files: tuple[PublishedFile, ...] = ()
    labels: Mapping[str, int] = field(default_factory=dict)
    faults: tuple[Fault, ...] = ()
    notes: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """The card as text, one statement a line."""
        lines = [f"published: {file.name}, {file.rows:,} rows" for file in self.files]
        if self.labels:
            counts = ", ".join(f"{label} {count:,}" for label, count in self.labels.items())
            lines.append(f"labels of the published test file: {counts}")
        lines += [f"fault: {fault.found} -> {fault.handling}" for fault in self.faults]
        return lines + [f"note: {note}" for note in self.notes]
