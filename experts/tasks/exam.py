"""Reads multiple-choice questions of an examination from a table of the user's own."""

from pathlib import Path

from ..errors import FinLoraError
from .published_files import read_rows
from .task import Example

LETTERS = "ABCDE"
EXAM_TASKS = ("cfa_level1", "cfa_level2", "cfa_level3", "cpa_reg")


def read_exam(path: Path) -> list[Example]:
    """CSV with the columns question, A, B and answer, optionally C, D, E and context (a case).

    The column answer holds the letter of the right choice. Questions on one case are one group.

    Raises:
        FinLoraError: A column is missing, or an answer is not the letter of a choice; the message names the
            row.
    """
    rows = read_rows(path, ("question", "A", "B", "answer"), optional=("C", "D", "E", "context"))
    return [_example(row, f"{path}, row {number}") for number, row in enumerate(rows, start=1)]


def _example(row: dict[str, str], where: str) -> Example:
    choices = {letter: row[letter] for letter in LETTERS if row[letter]}
    letter = row["answer"].strip(" .()").upper()
    if letter not in choices:
        known = ", ".join(choices)
        raise FinLoraError(f"{where}: {row['answer']!r} is not the letter of a choice; allowed are {known}.")
    lines = ["Choose the right answer. Answer with the exact letter and choice text and no explanations."]
    if row["context"]:
        lines.append(f"Context: {row['context']}")
    lines.append(f"Question: {row['question']}")
    lines += [f"{name}. {text}" for name, text in choices.items()]
    context = "\n".join([*lines, "Answer:"])
    return Example(context, f"{letter}. {choices[letter]}", row["context"] or row["question"])
