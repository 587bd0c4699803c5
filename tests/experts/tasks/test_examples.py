"""Reading and writing JSONL: nothing is lost, and every fault names file and line."""

import json

import pytest

from finlora.experts.errors import FinLoraError
from finlora.experts.tasks import Example, read_examples, write_examples

GOOD = '{"context": "What? Answer:", "target": "this"}'


def test_what_is_written_is_read_back(tmp_path):
    """Line breaks, quotes, other scripts and groups survive."""
    examples = [
        Example('two\nlines\u2028and "quotes"', "5"),
        Example("Größe \N{SNOWMAN}", "neutral", "Größe"),
    ]
    path = tmp_path / "new" / "examples.jsonl"
    write_examples(path, examples)
    assert read_examples(path) == examples
    assert [file.name for file in path.parent.iterdir()] == ["examples.jsonl"]


def test_blank_lines_and_other_fields_are_ignored(tmp_path):
    """FinanceBench rows carry more fields than a context and a target."""
    path = tmp_path / "examples.jsonl"
    record = {"context": "c", "target": " t ", "url": "u", "pages": [1]}
    path.write_text(f"\n{json.dumps(record)}\r\n\n", encoding="utf-8")
    assert read_examples(path) == [Example("c", "t")]


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ('{"context": "c", "target"', "not valid JSON"),
        ('["c", "t"]', "array instead of an object"),
        ("3", "number instead of an object"),
        ('{"target": "t"}', 'no "context"'),
        ('{"context": "c"}', 'no "target"'),
        ('{"context": 5, "target": "t"}', '"context" is a JSON number'),
        ('{"context": "c", "target": 5.0}', '"target" is a JSON number'),
        ('{"context": "c", "target": null}', '"target" is a JSON null'),
        ('{"context": "c", "target": "t", "group": ["g"]}', '"group" is a JSON array'),
        ('{"context": " ", "target": "t"}', '"context" is blank'),
        ('{"context": "c", "target": ""}', '"target" is blank'),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_a_malformed_line_is_named(tmp_path, line, fault):
    """File, line and fault stand in one sentence."""
    path = tmp_path / "examples.jsonl"
    path.write_text(f"{GOOD}\n{line}\n", encoding="utf-8")
    with pytest.raises(FinLoraError) as error:
        read_examples(path)
    assert f"{path}, line 2" in str(error.value)
    assert fault in str(error.value)


@pytest.mark.parametrize("content", [b"", b"\n \n", b"\xff\xfe\x00"])
def test_a_file_without_examples_is_refused(tmp_path, content):
    """Empty, blank and binary files."""
    path = tmp_path / "examples.jsonl"
    path.write_bytes(content)
    with pytest.raises(FinLoraError, match=r"examples\.jsonl"):
        read_examples(path)


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    """Both are named."""
    for path in (tmp_path / "absent.jsonl", tmp_path):
        with pytest.raises(FinLoraError, match=path.name):
            read_examples(path)


def test_writing_where_a_file_stands_in_the_way_is_refused(tmp_path):
    """The folder cannot be made below a file."""
    (tmp_path / "file").write_text("x", encoding="utf-8")
    with pytest.raises(FinLoraError, match="cannot be written"):
        write_examples(tmp_path / "file" / "examples.jsonl", [Example("c", "t")])
