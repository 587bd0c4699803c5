"""Builds the examples of a task from something a user has: a published file or the folder of a filing."""

from collections.abc import Callable
from pathlib import Path

from ..errors import FinLoraError
from ..filings.filing import read_filing
from .examples import read_examples
from .filing_questions import FILING_TASKS, filing_examples
from .published_files import read_fnxl, read_fpb, read_headlines, read_tfns
from .real import is_definition
from .scorers import parse_number
from .table import get_task
from .task import Example

_TABLES: dict[str, Callable[[Path], list[Example]]] = {
    "fnxl": lambda path: read_fnxl(path, first_value_only=True),
    "fpb": read_fpb,
    "tfns": read_tfns,
    "headline": read_headlines,
}
_UNUSABLE: dict[str, Callable[[Example], bool]] = {
    # Faults of FinLoRA's files: empty definitions, and value questions among the tag questions.
    "xbrl_term": lambda example: not is_definition(example),
    "xbrl_tags": lambda example: parse_number(example.target) is not None,
}


def build_task(task: str, source: str | Path) -> list[Example]:
    """Examples of a task from a FinLoRA JSONL file, the authors' own table, or a folder with a filing.

    Rows that cannot be answered (definition "nan", a number as the tag) are left out.

    Raises:
        FinLoraError: Unknown task, or a source that does not hold it; the message names what is allowed.
    """
    get_task(task)
    source = Path(source)
    if not source.exists():
        raise FinLoraError(f"{source} does not exist; {_allowed(task)}.")
    if source.is_dir() and task in FILING_TASKS:
        examples = filing_examples(task, read_filing(source))
    elif source.suffix == ".csv" and task in _TABLES:
        examples = _TABLES[task](source)
    elif source.suffix == ".jsonl" and task != "tfns":
        examples = read_examples(source)
    else:
        raise FinLoraError(f"{source} cannot be turned into examples of {task}; {_allowed(task)}.")
    unusable = _UNUSABLE.get(task, lambda _: False)
    examples = [example for example in examples if not unusable(example)]
    if not examples:
        raise FinLoraError(f"{source} holds nothing that {task} asks about; {_allowed(task)}.")
    return examples


def _allowed(task: str) -> str:
    if task == "tfns":
        return (
            "give the data set's own CSV (text, label); FinLoRA's JSONL file has neutral and positive swapped"
        )
    kinds = ["a JSONL file with context and target"]
    if task in _TABLES:
        kinds.append("the CSV file of the data set's authors")
    if task in FILING_TASKS:
        kinds.append("a folder with the XML files of one XBRL filing")
    return f"give {' or '.join(kinds)}"
