"""Builds the examples of a task from what a user has: a published file, a hub data set, a filing, a table."""

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..errors import FinLoraError
from .corrections import corrected
from .exam import EXAM_TASKS, read_exam
from .examples import read_examples
from .filing_context import Style
from .filing_questions import FILING_TASKS
from .filing_sources import DOCUMENTS, TASKS_OF_FILINGS, build_from_filing
from .hub import HUB_DATA, read_hub
from .items import with_item
from .published_files import (
    read_financebench_rows,
    read_fiqa,
    read_fnxl,
    read_fnxl_as_published,
    read_fnxl_tags,
    read_fpb,
    read_headlines,
    read_tfns,
)
from .spreadsheets import read_financebench, read_formulas, read_terms
from .table import get_task
from .task import Example
from .xbrl_tables import read_xbrl_table

Labels = Literal["corrected", "published"]

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class Source:
    """What to read, and how.

    Attributes:
        place: A file, a folder, or a hub id.
        labels: "corrected", or "published" for labels and prompts as FinLoRA has them, faults included.
        split: Part of a source that holds several: a split of a hub data set, or "train" or "test" of the
            formulas spreadsheet.
        filings: Folder of the filings that a table of XBRL questions is about.
        style: How a filing's facts stand in prompts.
    """

    place: str | Path
    labels: Labels = "corrected"
    split: str | None = None
    filings: Path | None = None
    style: Style = "full"

    @property
    def path(self) -> Path:
        """The place as a path."""
        return Path(self.place)

    @property
    def published(self) -> bool:
        """Whether faults are kept."""
        return self.labels == "published"


def build_task(
    task: str,
    source: str | Path,
    *,
    labels: Labels = "corrected",
    split: str | None = None,
    filings: Path | None = None,
    style: Style = "full",
    report: Callable[[str], object] = lambda _: None,
) -> list[Example]:
    """Examples of a task from a published file, a hub data set, or a folder with a filing.

    Args:
        task: Name of the task.
        source: FinLoRA's JSONL file, the authors' own CSV or XLSX, a hub id or a folder in the hub's format,
            a folder with a filing, or a table of the user's own examination.
        labels: "corrected", or "published": as FinLoRA published them, faults included.
        split: Part of the source; by default all of it, and "test" of a hub data set.
        filings: Folder of the filings that a table of XBRL questions is about.
        style: How a filing's facts stand in prompts: "plain" (tag and value), "full" (also period, unit and
            decimals), or "finlora" (a whole context as FinLoRA writes it).
        report: Called with each sentence that a user of the examples should read: size, checksum,
            corrections.

    Raises:
        FinLoraError: Unknown task, or a source that does not hold it; the message names what is allowed.
    """
    get_task(task)
    asked = Source(source, labels, split, filings, style)
    examples, notes = _read(task, asked)
    if not asked.published:
        examples, done = corrected(task, examples)
        notes += done
    if not examples:
        raise FinLoraError(f"{source} holds nothing that {task} asks about; {_allowed(task)}.")
    for note in notes:
        report(note)
    return [with_item(task, example) for example in examples]


def _read(task: str, source: Source) -> tuple[list[Example], list[str]]:
    path = source.path
    if not path.exists():
        if not _HUB_ID.fullmatch(str(source.place)) or path.suffix in (".csv", ".jsonl", ".xlsx"):
            raise FinLoraError(f"{path} does not exist; {_allowed(task)}.")
        return _from_hub(task, source)
    if path.is_dir() and task in HUB_DATA:
        return _from_hub(task, source)
    if task in TASKS_OF_FILINGS and (path.is_dir() or path.suffix in (".xml", *DOCUMENTS)):
        return build_from_filing(task, path, source.style)
    if path.suffix == ".csv" and task in FILING_TASKS:
        return _from_xbrl_table(task, source)
    if path.suffix == ".jsonl" or (task, path.suffix) in _TABLES:
        examples = _TABLES.get((task, path.suffix), _from_jsonl)(source)
        notes = [*_size(task, path.suffix, len(examples)), _checksum(task, path)]
        return examples, [*notes, *_unknown_tags(path, examples)] if task == "fnxl" else notes
    raise FinLoraError(f"{path} cannot be turned into examples of {task}; {_allowed(task)}.")


def _from_jsonl(source: Source) -> list[Example]:
    return read_examples(source.path)


def _from_hub(task: str, source: Source) -> tuple[list[Example], list[str]]:
    split = source.split or "test"
    examples = read_hub(task, source.place, split, published=source.published)
    return examples, [f"split {split} of {source.place}"]


def _from_xbrl_table(task: str, source: Source) -> tuple[list[Example], list[str]]:
    if source.filings is None:
        raise FinLoraError(
            f"{source.path} asks about filings that it does not hold; name the folder that holds them "
            f"(--filings)."
        )
    examples, absent = read_xbrl_table(source.path, source.filings)
    notes = [f"rows whose filing is not in {source.filings}: {absent:,} left out"] if absent else []
    return examples, [*notes, *_size(task, ".csv", len(examples) + absent), _checksum(task, source.path)]


def _size(task: str, suffix: str, rows: int) -> list[str]:
    """A warning if no published file of this kind has as many rows."""
    expected = [file for file in get_task(task).card.files if file.suffix == suffix]
    if not expected or any(file.rows == rows for file in expected):
        return []
    known = "; ".join(f"{file.name}: {file.rows:,}" for file in expected)
    return [f"warning: {rows:,} rows, unlike the published files as a whole ({known})"]


def _unknown_tags(path: Path, examples: list[Example]) -> list[str]:
    """Whether the tags are those of the table of all tags, where FNXL's lies beside its sentences."""
    table = path.with_name("labelCount.csv")
    if not table.is_file():
        return []
    tags = {tag for example in examples for tag in example.target.split(",")}
    unknown = len(tags - read_fnxl_tags(table))
    return [f"tags that {table} does not have: {unknown:,} of {len(tags):,}", _checksum("fnxl", table)]


def _checksum(task: str, path: Path) -> str:
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    known = next((file.name for file in get_task(task).card.files if file.sha256 == digest), None)
    return f"sha256 {digest}" + (f", as published: {known}" if known else "")


def _fiqa_or_finlora(source: Source) -> list[Example]:
    # Both are JSONL: one text a line in PIXIU's form, whole prompts in FinLoRA's.
    with source.path.open(encoding="utf-8-sig", errors="replace") as file:
        return read_fiqa(source.path) if '"text"' in file.readline() else _from_jsonl(source)


_TABLES: dict[tuple[str, str], Callable[[Source], list[Example]]] = {
    ("fnxl", ".csv"): lambda source: (
        read_fnxl_as_published(source.path)
        if source.published
        else read_fnxl(source.path, first_value_only=True)
    ),
    ("fpb", ".csv"): lambda source: read_fpb(source.path, part=source.split),
    ("fiqa", ".jsonl"): _fiqa_or_finlora,
    ("tfns", ".csv"): lambda source: read_tfns(source.path, published=source.published),
    ("headline", ".csv"): lambda source: read_headlines(source.path),
    ("xbrl_term", ".xlsx"): lambda source: read_terms(source.path),
    ("financial_math", ".xlsx"): lambda source: read_formulas(
        source.path, source.split, published=source.published
    ),
    ("financebench", ".jsonl"): lambda source: read_financebench_rows(source.path),
    ("financebench", ".xlsx"): lambda source: read_financebench(source.path),
    **{(task, ".csv"): (lambda source: read_exam(source.path)) for task in EXAM_TASKS},
}
_KINDS = {".csv": "the CSV file of the data set's authors", ".xlsx": "XBRL-Agent's XLSX file"}


def _allowed(task: str) -> str:
    kinds = ["a JSONL file with context and target"]
    if task in EXAM_TASKS:
        kinds.append("a CSV file with the columns question, A, B, answer and optionally C, D, E, context")
    else:
        kinds += [_KINDS[suffix] for name, suffix in _TABLES if name == task and suffix in _KINDS]
    if task in TASKS_OF_FILINGS:
        kinds.append("a folder with the files of one XBRL filing, its instance or its inline document")
    if task in FILING_TASKS:
        kinds.append("FinLoRA's CSV table with --filings")
    if task in HUB_DATA:
        kinds.append(f"the hub id {HUB_DATA[task].id} or a folder in its format")
    return f"give {' or '.join(kinds)}"
