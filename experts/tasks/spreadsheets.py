"""Reads XBRL-Agent's spreadsheets (https://github.com/KirkHan0920/XBRL-Agent) with openpyxl."""

import re
import zipfile
from pathlib import Path

import openpyxl
from openpyxl.utils.exceptions import InvalidFileException

from ..errors import FinLoraError
from .task import Example
from .xbrl_questions import term_question

TRAINING_QUESTIONS = 16
"""Of the 20 questions on a formula, FinLoRA trains on the first 16 and tests on the others."""
MOST_ROWS = 100_000
_QUESTIONS = 20
_LONGEST_NUMBER = 3
_NUMBERING = re.compile(r"^\s*\d+\.\s*")


def read_terms(path: Path) -> list[Example]:
    """Terminology (Term, Explanation), one question a row; an empty cell becomes "nan", as in FinLoRA."""
    rows = _rows(path, ("Term", "Explanation"))
    return [term_question(row["Term"] or "nan", row["Explanation"] or "nan") for row in rows]


def read_formulas(path: Path, split: str | None = None, *, published: bool = False) -> list[Example]:
    """Formulas with up to 20 numbered questions and answers a row.

    Args:
        path: The spreadsheet.
        split: "train" for the questions 1 to 16, "test" for 17 to 20, None for all.
        published: Cut three characters of numbering from every question, as FinLoRA does, which leaves a
            blank before some.
    """
    columns = [f"{kind} {number}" for number in range(1, _QUESTIONS + 1) for kind in ("Question", "Answer")]
    examples = []
    for row in _rows(path, ("Formula Name", "Formula", "Explanation", *columns)):
        for number in range(1, _QUESTIONS + 1):
            question, answer = row[f"Question {number}"], row[f"Answer {number}"]
            side = "train" if number <= TRAINING_QUESTIONS else "test"
            if not question.strip() or not answer.strip() or split not in (None, side):
                continue
            asked = question[_LONGEST_NUMBER:] if published else _NUMBERING.sub("", question)
            context = (
                f"Use formula {row['Formula Name']} to answer the question. Answer with a numerical answer "
                f"with "
                "2 decimal places and with no explanations or other text. "
                f"Formula: {row['Formula']}, Explanation: {row['Explanation']}. Question: {asked}. Answer:"
            )
            examples.append(Example(context, _decimal(answer.strip())))
    return examples


def read_financebench(path: Path) -> list[Example]:
    """FinanceBench questions with their evidence in the place of scanned pages; a document is a group."""
    examples = []
    for row in _rows(path, ("doc_name", "question", "answer", "evidence_text")):
        if not row["question"].strip() or not row["answer"].strip():
            continue
        context = (
            "Answer the following question very briefly using scanned text from pages. No explanation "
            "needed. "
            f"Question: {row['question'].strip()}\nDocument Pages "
            f"Context:\n{row['evidence_text'].strip()}\n\n"
            "Answer:"
        )
        examples.append(Example(context, row["answer"].strip(), row["doc_name"].strip()))
    return examples


def _rows(path: Path, columns: tuple[str, ...]) -> list[dict[str, str]]:
    """Rows of the first sheet as text, by column; formulas appear as their stored results.

    Raises:
        FinLoraError: No spreadsheet, a column is missing, or there are no rows or too many.
    """
    try:
        book = openpyxl.load_workbook(path, read_only=True, data_only=True)
    except (OSError, InvalidFileException, zipfile.BadZipFile, KeyError, ValueError) as error:
        raise FinLoraError(f"{path} cannot be read as an XLSX spreadsheet: {error}.") from error
    try:
        lines = book.worksheets[0].iter_rows(values_only=True)
        header = ["" if cell is None else str(cell).strip() for cell in next(lines, ())]
        missing = [column for column in columns if column not in header]
        if missing:
            raise FinLoraError(f"{path} lacks the column {missing[0]!r}; it needs {_some(columns)}.")
        places = {column: header.index(column) for column in columns}
        rows = []
        for number, line in enumerate(lines, start=2):
            if number > MOST_ROWS:
                raise FinLoraError(f"{path} has more than {MOST_ROWS:,} rows; divide it.")
            row = {
                column: _text(line[place] if place < len(line) else None) for column, place in places.items()
            }
            if any(row.values()):
                rows.append(row)
    finally:
        book.close()
    if not rows:
        raise FinLoraError(f"{path} has no rows below its header; it needs {_some(columns)}.")
    return rows


def _text(cell: object) -> str:
    return "" if cell is None else str(cell)


def _decimal(answer: str) -> str:
    """A whole number with ".0", as pandas writes it in FinLoRA's files."""
    return f"{answer}.0" if answer.lstrip("-").isdigit() else answer


def _some(columns: tuple[str, ...]) -> str:
    shown = ", ".join(columns[:4])
    return f"the columns {shown}" + (f" and {len(columns) - 4} more" if len(columns) > 4 else "")
