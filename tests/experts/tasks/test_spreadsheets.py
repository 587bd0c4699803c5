"""Spreadsheets and tables of a user's own, with invented rows; the real ones where at hand."""

from collections.abc import Sequence

import openpyxl
import pytest

from finlora.experts.errors import FinLoraError
from finlora.experts.tasks import read_examples
from finlora.experts.tasks.data_folder import data_file
from finlora.experts.tasks.sources import build_task
from finlora.experts.tasks.spreadsheets import read_formulas, read_terms

FORMULA_COLUMNS = (
    "Formula Name",
    "Formula",
    "Explanation",
    *(f"{kind} {number}" for number in range(1, 21) for kind in ("Question", "Answer")),
)


@pytest.fixture
def sheet(tmp_path):
    """Writes an XLSX file of the given rows and returns its path."""

    def write_rows(*rows: Sequence[object]):
        book = openpyxl.Workbook()
        for row in rows:
            book.worksheets[0].append(list(row))
        book.save(tmp_path / "sheet.xlsx")
        return tmp_path / "sheet.xlsx"

    return write_rows


def test_terms(sheet):
    """Empty cells are "nan" as published, and dropped otherwise."""
    path = sheet(("Term", "Explanation", None), ("Goodwill", "What is paid above value."), ("Cash", None), ())
    assert len(build_task("xbrl_term", path)) == 1
    assert [example.target for example in build_task("xbrl_term", path, labels="published")] == [
        "What is paid above value.",
        "nan",
    ]


def test_formulas(sheet):
    """Questions 1 to 16 train; numbering goes, with FinLoRA's stray blank only as published."""
    row: list[object] = ["Beta", "B = C / V", "C: covariance", *[None] * 40]
    row[3], row[4], row[35], row[36] = '1. "What is it?"', 2, '17. "And then?"', 0.5
    path = sheet(FORMULA_COLUMNS, row)
    train, test = (build_task("financial_math", path, split=split) for split in ("train", "test"))
    assert [example.target for example in (*train, *test)] == ["2.00", "0.50"]
    assert 'Question: "And then?". Answer:' in test[0].context
    (published,) = build_task("financial_math", path, split="test", labels="published")
    assert 'Question:  "And then?". Answer:' in published.context


def test_financebench(sheet):
    """The evidence stands in for scanned pages; a document is a group."""
    columns = ("doc_name", "question", "answer", "evidence_text")
    (example,) = build_task("financebench", sheet(columns, ("A_10K", "How much?", 3.5, "It was 3.5.")))
    assert (example.target, example.group) == ("3.5", "A_10K")
    assert "How much?\nDocument Pages Context:\nIt was 3.5.\n\nAnswer:" in example.context


def test_other_spreadsheets_are_refused(sheet, tmp_path):
    """The message names the missing column, or says that it is none."""
    with pytest.raises(FinLoraError, match=r"lacks the column 'Explanation'; it needs the columns Term"):
        build_task("xbrl_term", sheet(("Term", "Meaning"), ("a", "b")))
    with pytest.raises(FinLoraError, match="Explanation, Question 1 and 39 more"):
        build_task("financial_math", sheet(("Term", "Meaning"), ("a", "b")))
    with pytest.raises(FinLoraError, match="no rows below its header"):
        build_task("xbrl_term", sheet(("Term", "Explanation")))
    with pytest.raises(FinLoraError, match="lacks the column 'Term'"):
        build_task("xbrl_term", sheet())
    (tmp_path / "text.xlsx").write_text("Term,Explanation")
    with pytest.raises(FinLoraError, match="cannot be read as an XLSX spreadsheet"):
        build_task("xbrl_term", tmp_path / "text.xlsx")


def test_examinations(write):
    """Letter and text are the answer; questions on one case are one group."""
    header = "question,A,B,C,answer,context"
    path = write("cfa.csv", header, '"What, then?",1,2,3,b,A case.', "And?,4,5,,(A),A case.")
    first, second = build_task("cfa_level2", path)
    assert (first.target, second.target) == ("B. 2", "A. 4")
    assert first.group == second.group == "A case."
    assert "Context: A case.\nQuestion: What, then?\nA. 1\nB. 2\nC. 3\nAnswer:" in first.context
    assert "C. " not in second.context
    with pytest.raises(FinLoraError, match=r"row 1: 'C' is not the letter of a choice; allowed are A, B\."):
        build_task("cpa_reg", write("cpa.csv", "question,A,B,answer", "q,1,2,C"))
    with pytest.raises(FinLoraError, match="columns question, A, B, answer"):
        build_task("cfa_level1", write("cfa.txt", "q"))


def test_spreadsheets_give_finloras_rows(data):
    """Prompts and answers of FinLoRA's files are those built from XBRL-Agent's spreadsheets."""
    formulas = data_file(data, "xbrl_agent/formulas_with_explanations_with_questions_with_gt.xlsx")
    for split in ("train", "test"):
        built = {
            (example.context, example.target) for example in read_formulas(formulas, split, published=True)
        }
        rows = read_examples(data_file(data, f"finlora/{split}/formula_{split}.jsonl"))
        assert built == {(row.context, row.target) for row in rows}
    rows = {
        (row.context, row.target)
        for split in ("train", "test")
        for row in read_examples(data_file(data, f"finlora/{split}/xbrl_term_{split}.jsonl"))
    }
    terms = read_terms(data_file(data, "xbrl_agent/XBRL Terminology.xlsx"))
    assert sum((term.context, term.target.strip()) in rows for term in terms) > 0.99 * len(rows)


@pytest.mark.parametrize(
    ("task", "table", "rebuilt"),
    [
        ("xbrl_tags", "xbrl_tags_test", "tags"),
        ("xbrl_value", "value_test", "value"),
        ("xbrl_formula", "formula_formatted_with_tags_test", "formula"),
        ("xbrl_formula_calc", "formula_calculation_test", "formula_calculations"),
    ],
)
def test_tables_and_filings_give_finloras_prompts(data, task, table, rebuilt):
    """Byte for byte those of the rebuilt files."""
    source = data_file(data, f"finlora/xbrl_analysis/{table}.csv")
    built = build_task(task, source, labels="published", filings=data_file(data, "filings"))
    wanted = read_examples(data_file(data, f"finlora/rebuilt/xbrl_extract_{rebuilt}_test.jsonl"))
    assert [(one.context, one.target) for one in built] == [(one.context, one.target) for one in wanted]


def test_tables_need_their_filings(write, tmp_path):
    """The message says which flag names them."""
    row = "i,Question: q\\nAnswer:,5,a/a.xml,c-1"
    path = write("value_test.csv", "instruction,input,output,doc_path,context_id", row)
    with pytest.raises(FinLoraError, match="--filings"):
        build_task("xbrl_value", path)
    with pytest.raises(FinLoraError, match=r"holds no filing .* such as a/a\.xml"):
        build_task("xbrl_value", path, filings=tmp_path)
    with pytest.raises(FinLoraError, match="lacks the column 'doc_path'"):
        build_task("xbrl_value", write("other.csv", "instruction,input,output", "a,b,c"), filings=tmp_path)
