"""Joins FinLoRA's tables of XBRL questions with the filings they ask about, which the tables do not hold."""

import csv
from pathlib import Path

from ..errors import FinLoraError
from .finlora_prompts import context_texts, xbrl_prompt
from .task import Example

_COLUMNS = ("instruction", "input", "output", "doc_path", "context_id")


def read_xbrl_table(path: Path, filings: Path) -> tuple[list[Example], int]:
    """The questions of a table (xbrl_tags_test.csv and the like) in FinLoRA's prompts.

    Args:
        path: CSV with instruction, input, output, doc_path and context_id.
        filings: Folder in which a row's doc_path names an XBRL instance.

    Returns:
        The examples whose filing is there, and how many rows lack theirs.

    Raises:
        FinLoraError: The table lacks a column, or no filing is there.
    """
    try:
        # Read as it is: blanks at the ends of instruction and input are part of the prompt.
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            missing = [column for column in _COLUMNS if column not in (reader.fieldnames or ())]
            rows = [] if missing else list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise FinLoraError(f"{path} cannot be read as a table: {error}.") from error
    if missing:
        raise FinLoraError(f"{path} lacks the column {missing[0]!r}; it needs {', '.join(_COLUMNS)}.")
    examples = []
    for row in rows:
        instance = filings / row["doc_path"]
        if not instance.is_file():
            continue
        text = context_texts(instance).get(row["context_id"], "")
        context = xbrl_prompt(row["instruction"], text, row["input"])
        examples.append(Example(context, row["output"].strip()))
    if not examples:
        example = f", such as {rows[0]['doc_path']}" if rows else ""
        raise FinLoraError(f"{filings} holds no filing that {path} asks about{example} (--filings).")
    return examples, len(rows) - len(examples)
