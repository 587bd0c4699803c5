"""FinLoRA's prompts, rebuilt byte for byte: from a small instance written here and from the real files."""

import ast
import csv
import json
import re
from pathlib import Path

import pytest

from finlora.experts.errors import FinLoraError
from finlora.experts.tasks.data_folder import data_folder
from finlora.experts.tasks.finlora_prompts import (
    INSTRUCTIONS,
    context_texts,
    fnxl_prompts,
    instance_in,
    xbrl_prompt,
)

INSTANCE = """<xbrl xmlns="http://www.xbrl.org/2003/instance" xmlns:us-gaap="http://fasb.org/us-gaap/2023"
 xmlns:acme="http://acme.com/2023" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">
  <us-gaap:Assets contextRef="c-1" decimals="-6" id="f-1" unitRef="usd">5</us-gaap:Assets>
  <us-gaap:Goodwill contextRef="c-1" id="f-2" unitRef="usd" xsi:nil="true"/>
  <us-gaap:Assets contextRef="c-2" decimals="-6" id="f-3" unitRef="usd">4</us-gaap:Assets>
  <acme:Robots contextRef="c-1" decimals="0" id="f-4" unitRef="usd">7</acme:Robots>
  <us-gaap:PolicyTextBlock contextRef="c-1" id="f-5">We count.</us-gaap:PolicyTextBlock>
  <us-gaap:UseOfEstimates contextRef="c-1" id="f-6">&lt;p style="x"&gt;We guess.</us-gaap:UseOfEstimates>
  <us-gaap:FiscalPeriod contextRef="c-1" id="f-7">A &amp; B {long}</us-gaap:FiscalPeriod>
  <us-gaap:Assets contextRef="c-1" decimals="-9" id="f-8" unitRef="usd">5</us-gaap:Assets>
</xbrl>
"""
TABLES = {
    "xbrl_extract_tags_test": ("xbrl_tags_test", "xbrl_tags"),
    "xbrl_extract_value_test": ("value_test", "xbrl_value"),
    "xbrl_extract_formula_test": ("formula_formatted_with_tags_test", "xbrl_formula"),
    "xbrl_extract_formula_calculations_test": ("formula_calculation_test", "xbrl_formula_calc"),
    "xbrl_extract_train_formula": ("formula_formatted_with_tags_train", "xbrl_formula"),
    "xbrl_extract_train_formula_calculations": ("formula_calculation_train", "xbrl_formula_calc"),
}
"""FinLoRA's table of questions and the task, by the name of the file of whole prompts."""


@pytest.fixture
def published() -> Path:
    try:
        return data_folder()
    except FinLoraError as error:
        pytest.skip(str(error))


def test_a_context_keeps_us_gaap_facts_and_loses_everything_else(tmp_path: Path) -> None:
    """No other context, extension, text block or attribute; repeats stay; text is cut, then loses blanks."""
    (tmp_path / "acme_htm.xml").write_text(INSTANCE.replace("{long}", "c" * 200))
    assert context_texts(instance_in(tmp_path))["c-1"] == (
        "<us-gaap:Assets>5</>\n<us-gaap:Goodwillxmlns:xsi:/>\n"
        f"<us-gaap:FiscalPeriod>A&amp;B{'c' * 94}</>\n<us-gaap:Assets>5</>\n"
    )


def test_a_folder_without_an_instance_is_named(tmp_path: Path) -> None:
    (tmp_path / "labels.xml").write_text("<linkbase/>")
    with pytest.raises(FinLoraError, match="no XBRL instance"):
        instance_in(tmp_path)


def test_fnxl_prompts_ask_four_questions_under_all_tags() -> None:
    """Five questions make two prompts; the tags are sorted and the answers keep the questions' order."""
    questions = [(f"It paid {number} cents.", str(number), tag) for number, tag in enumerate("EDCBA")]
    first, second = fnxl_prompts(questions, ["E", "D", "C", "B", "A"])
    assert first.context.split("\n")[1] == "A, B, C, D, E"
    assert first.context.endswith('"3" in sentence: "It paid 3 cents."?\n\nOutput US GAAP tags:')
    assert (first.target, second.target) == ("E,D,C,B", "A")


@pytest.mark.parametrize("name", TABLES)
def test_every_published_xbrl_prompt_is_rebuilt(published: Path, name: str) -> None:
    """From the table's row, the filing and the id of a context."""
    table, task = TABLES[name]
    with (published / f"finlora/xbrl_analysis/{table}.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if (published / "filings" / row["doc_path"]).exists()]
    built = {}
    for row in rows:
        context = context_texts(published / "filings" / row["doc_path"])[row["context_id"]]
        built[row["input"]] = xbrl_prompt(INSTRUCTIONS[task], context, row["input"])
    lines = (published / f"finlora/rebuilt/{name}.jsonl").read_text(encoding="utf-8").splitlines()
    prompts = [json.loads(line)["context"] for line in lines]
    assert len(prompts) >= 15
    assert {built[prompt[prompt.rindex("\nQuestion: ") + 1 :]] for prompt in prompts} == set(prompts)


def test_every_published_fnxl_prompt_is_rebuilt(published: Path) -> None:
    """From the authors' table: the first value of each tag of a sentence; the tag list is the prompt's."""
    with (published / "fnxl/test_sample.csv").open(encoding="utf-8", newline="") as file:
        questions = [
            (row["sentence"], values[0], tag.removeprefix("us-gaap:"))
            for row in csv.DictReader(file)
            for tag, values in ast.literal_eval(row["numerals-tags"]).items()
        ]
    lines = (published / "finlora/rebuilt/fnxl_test_batched.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 8
    for line in lines:
        row = json.loads(line)
        asked = re.findall(r'for entity "(.*?)" in sentence: "(.*?)"\?\n', row["context"])
        found = [
            next(q for q in questions if q[:2] == (sentence, numeral) and q[2] in row["target"].split(","))
            for numeral, sentence in asked
        ]
        tags = row["context"].split("\n")[1].split(", ")
        assert len(tags) == 587
        [built] = fnxl_prompts(found, tags)
        assert (built.context, built.target) == (row["context"], row["target"])
