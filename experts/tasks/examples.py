"""Reads and writes examples as JSONL: objects with ``context``, ``target`` and optionally ``group``."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from ..atomic_write import write_text
from ..errors import FinLoraError
from .task import Example

_FORM = 'every line must be a JSON object such as {"context": "the prompt", "target": "the answer"}'


def read_examples(path: str | Path) -> list[Example]:
    """Reads every example of a file; blank lines are skipped, further fields are ignored.

    Raises:
        FinLoraError: The file is missing, unreadable, empty or malformed; the message names line and fault.
    """
    examples = [_example(record, where) for where, record in read_records(Path(path), _FORM)]
    if not examples:
        raise FinLoraError(f"{path} has no examples; {_FORM}.")
    return examples


def read_records(path: Path, form: str) -> Iterator[tuple[str, dict]]:
    """The objects of a JSONL file, each with "file, line" for messages; blank lines are skipped.

    Raises:
        FinLoraError: The file is missing or unreadable, or a line is no JSON object; ends with ``form``.
    """
    for number, line in enumerate(_read_text(path, form).split("\n"), start=1):
        if line.strip():
            where = f"{path}, line {number}"
            yield where, _object(line, where, form)


def write_examples(path: str | Path, examples: Iterable[Example]) -> None:
    """Writes a file that ``read_examples`` reads back equal; the file appears whole or not at all."""
    path = Path(path)
    lines = [json.dumps(_record(example), ensure_ascii=False) + "\n" for example in examples]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, "".join(lines))
    except OSError as error:
        raise FinLoraError(f"{path} cannot be written: {error.strerror}.") from error


def _read_text(path: Path, form: str) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise FinLoraError(f"{path} does not exist; give a JSONL file in which {form}.") from None
    except OSError as error:
        raise FinLoraError(f"{path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise FinLoraError(f"{path} is not UTF-8 text at byte {error.start}; save it as UTF-8.") from error


def _object(line: str, where: str, form: str) -> dict:
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        fault = f"not valid JSON ({error.msg} at column {error.colno})"
        raise FinLoraError(f"{where}: {fault}; {form}.") from error
    except RecursionError:
        raise FinLoraError(f"{where}: nested too deeply; {form}.") from None
    if not isinstance(record, dict):
        raise FinLoraError(f"{where}: a JSON {_kind(record)} instead of an object; {form}.")
    return record


def _example(record: dict, where: str) -> Example:
    for field in ("context", "target"):
        if field not in record:
            raise FinLoraError(f'{where}: no "{field}"; {_FORM}.')
    for field in ("context", "target", "group"):
        value = record.get(field, "")
        if not isinstance(value, str):
            raise FinLoraError(f'{where}: "{field}" is a JSON {_kind(value)} and must be a string; {_FORM}.')
        if field != "group" and not value.strip():
            raise FinLoraError(f'{where}: "{field}" is blank; {_FORM}.')
    return Example(record["context"], record["target"].strip(), record.get("group", ""))


def _record(example: Example) -> dict[str, str]:
    record = {"context": example.context, "target": example.target}
    return record | {"group": example.group} if example.group else record


def _kind(value: object) -> str:
    names = {dict: "object", list: "array", str: "string", bool: "boolean", type(None): "null"}
    return names.get(type(value), "number")
