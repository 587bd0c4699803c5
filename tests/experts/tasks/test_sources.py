"""Published files and other sources, with invented rows in their authors' layout."""

import hashlib
import json

import pytest

from finlora.experts.errors import FinLoraError
from finlora.experts.tasks import Example, write_examples
from finlora.experts.tasks.published_files import read_fiqa, read_fnxl, read_fpb, read_headlines, read_tfns
from finlora.experts.tasks.sources import build_task


def test_tfns_reads_the_data_sets_own_labels(write):
    """0 bearish, 1 bullish, 2 neutral: not negative, neutral, positive."""
    path = write("tfns.csv", "text,label", '"$ABC up, and away",1', "$ABC down,0", "$ABC is,2")
    assert [example.target for example in read_tfns(path)] == ["positive", "negative", "neutral"]
    assert "Input: $ABC up, and away\n" in read_tfns(path)[0].context
    assert "this tweet" in read_tfns(path)[0].context


def test_fpb_keeps_one_part(write):
    """Only training rows of FinLoRA's split are trained on."""
    rows = ("Profit rose .,positive,finlora_train", "Profit fell .,negative,finlora_test")
    path = write("fpb.csv", "sentence,label,finlora_split", *rows)
    assert [example.target for example in read_fpb(path, part="finlora_train")] == ["positive"]
    assert [example.target for example in read_fpb(path)] == ["positive", "negative"]


def test_fiqa_tells_posts_from_news(write):
    """Ticker signs, links and mentions mark a post."""
    texts = ("Shares of Acme fall", "$ACME falls", "Acme falls https://t.co/x")
    path = write("fiqa.jsonl", *(json.dumps({"text": text, "label": "negative"}) for text in texts))
    assert ["this tweet" in example.context for example in read_fiqa(path)] == [False, True, True]
    for line in ('{"text": "a"}', "[]"):
        with pytest.raises(FinLoraError, match=r"fiqa\.jsonl, line 1: no text|array instead"):
            read_fiqa(write("fiqa.jsonl", line))
    with pytest.raises(FinLoraError, match=r"fiqa\.jsonl, line 1: not valid JSON"):
        read_fiqa(write("fiqa.jsonl", "{"))


def test_headlines_answer_four_questions_from_four_columns(write):
    """All questions of a headline are one group."""
    columns = (
        "Dates",
        "URL",
        "News",
        "Price Direction Up",
        "Price Direction Constant",
        "Price Direction Down",
        "Asset Comparision",
        "Past Information",
        "Future Information",
        "Price Sentiment",
    )
    row = ("1-1-2020", "u", '"gold up, silver down"', "1", "0", "0", "1", "1", "0", "positive")
    examples = read_headlines(write("gold.csv", "\t".join(columns), "\t".join(row)))
    assert [example.target for example in examples] == ["Yes", "No", "No", "Yes"]
    assert {example.group for example in examples} == {"gold up, silver down"}


def test_fnxl_asks_for_values_that_have_one_tag(write):
    """A value with two tags in a sentence is left out; FinLoRA asks for the first value of a tag."""
    tags = "{'us-gaap:A': ['7', '9', '7'], 'us-gaap:B': ['3'], 'us-gaap:C': ['3', '4']}"
    path = write("fnxl.csv", "sentence,numerals-tags", f'"It paid 7, 9, 3 and 4.","{tags}"')
    every = [
        (example.context.split('"')[1], example.target) for example in read_fnxl(path, first_value_only=False)
    ]
    assert every == [("7", "A"), ("9", "A"), ("4", "C")]
    first = [example.target for example in read_fnxl(path, first_value_only=True)]
    assert first == ["A", "C"]
    broken = write("broken.csv", "sentence,numerals-tags", "a,__import__('os')")
    with pytest.raises(FinLoraError, match="numerals-tags"):
        read_fnxl(broken, first_value_only=True)


def test_fnxl_tags_are_looked_up(write):
    """In the table of all tags, where it lies beside the sentences."""
    tags = "{'us-gaap:A': ['7'], 'us-gaap:B': ['3']}"
    path = write("sample.csv", "sentence,numerals-tags", f'"It paid 7 and 3.","{tags}"')
    table = write("labelCount.csv", "0,us-gaap:A,128")
    said: list[str] = []
    build_task("fnxl", path, report=said.append)
    assert f"tags that {table} does not have: 1 of 2" in said
    write("labelCount.csv", "us-gaap:A")
    with pytest.raises(FinLoraError, match="no table of number, tag and count"):
        build_task("fnxl", path)


@pytest.mark.parametrize(
    ("lines", "fault"),
    [
        (("text,sentiment", "a,b"), "lacks the column 'label'"),
        (("text,label",), "has no rows"),
        (("",), "lacks the column 'text'"),
        (("text,label", "a,3"), "has the label '3'"),
        (("text,label", "a"), "has the label ''"),
    ],
)
def test_a_table_of_another_kind_is_refused(write, lines, fault):
    """The message names what the table needs."""
    with pytest.raises(FinLoraError, match=fault):
        read_tfns(write("tfns.csv", *lines))


def test_jsonl_passes_through_without_unanswerable_rows(write):
    """FinLoRA's "nan" definitions and numbers among tags are dropped."""
    terms = [Example("What is A? Answer:", "A thing."), Example("What is B? Answer:", "nan")]
    path = write("terms.jsonl", *(json.dumps({"context": e.context, "target": e.target}) for e in terms))
    assert build_task("xbrl_term", path) == terms[:1]
    assert build_task("financebench", path) == build_task("xbrl_term", path, labels="published") == terms
    numbers = write(
        "tags.jsonl", '{"context": "c", "target": "us-gaap:A"}', '{"context": "d", "target": "4.0"}'
    )
    assert [example.target for example in build_task("xbrl_tags", numbers)] == ["us-gaap:A"]
    assert [example.target for example in build_task("xbrl_value", numbers)] == ["us-gaap:A", "4.0"]


def test_documents_of_financebench_are_groups(write):
    """By the url that FinLoRA's rows have; without one, by the pages shown."""
    prompt = "Answer. Question: Q{}\nDocument Pages Context:\nPage 1:\nText.\n\nAnswer:"
    rows = [{"context": prompt.format(i), "target": "a", "url": "https://x/a.pdf"} for i in range(2)]
    examples = build_task("financebench", write("f.jsonl", *map(json.dumps, rows)))
    assert [example.group for example in examples] == ["https://x/a.pdf"] * 2
    del rows[0]["url"], rows[1]["url"]
    one, other = build_task("financebench", write("f.jsonl", *map(json.dumps, rows)))
    assert one.group == other.group != ""


def test_tables_are_built_by_task(write):
    """The CSV of the authors stands for its own task only."""
    path = write("tfns.csv", "text,label", "$ABC up,1")
    assert [example.target for example in build_task("tfns", path)] == ["positive"]
    with pytest.raises(FinLoraError, match="oliverwang15/news_with_gpt_instructions"):
        build_task("nwgi", path)


def test_finloras_permuted_file_is_put_right_once(write, tmp_path):
    """Neutral and positive are swapped back; what was built from it is not swapped again."""
    prompt = "Instruction: What is the sentiment of this tweet?\nInput: $A {}\nAnswer: "
    labels = ("neutral", "positive", "negative")
    rows = [json.dumps({"context": prompt.format(label), "target": label}) for label in labels]
    path = write("tfns_test.jsonl", *rows)
    said: list[str] = []
    right = build_task("tfns", path, report=said.append)
    assert [example.target for example in right] == ["positive", "neutral", "negative"]
    assert any("neutral and positive swapped: 2 corrected" in line for line in said)
    write_examples(tmp_path / "built.jsonl", right)
    assert build_task("tfns", tmp_path / "built.jsonl") == right
    published = build_task("tfns", path, labels="published")
    assert [example.target for example in published] == list(labels)
    csv = write("tfns.csv", "text,label", "$A up,1", "$A is,2")
    assert [example.target for example in build_task("tfns", csv, labels="published")] == [
        "neutral",
        "positive",
    ]


def test_sizes_and_checksums_are_told(write):
    """A file of another size than the published ones is read, with a warning."""
    path = write("fpb.jsonl", '{"context": "c", "target": "neutral"}')
    said: list[str] = []
    assert len(build_task("fpb", path, report=said.append)) == 1
    assert any(line.startswith("warning: 1 rows") and "fpb_test.jsonl: 1,212" in line for line in said)
    assert f"sha256 {hashlib.sha256(path.read_bytes()).hexdigest()}" in said
    rows = [json.dumps({"context": f"c{number}", "target": "neutral"}) for number in range(1212)]
    said.clear()
    build_task("fpb", write("whole.jsonl", *rows), report=said.append)
    assert not any(line.startswith("warning") for line in said)


def test_sources_that_cannot_be_used_are_refused(write, tmp_path):
    """Missing file, wrong kind, a folder for a text task, an unknown task, nothing left."""
    with pytest.raises(FinLoraError, match="does not exist"):
        build_task("fpb", tmp_path / "absent.csv")
    with pytest.raises(FinLoraError, match="folder with the files of one XBRL filing"):
        build_task("xbrl_value", write("notes.txt", "hello"))
    with pytest.raises(FinLoraError, match="CSV file of the data set's authors"):
        build_task("fnxl", write("notes.txt", "hello"))
    with pytest.raises(FinLoraError, match="asks about sentences, which only inline XBRL has"):
        build_task("fnxl", tmp_path)
    with pytest.raises(FinLoraError, match="did you mean"):
        build_task("fnxll", tmp_path)
    with pytest.raises(FinLoraError, match="holds nothing that xbrl_term asks"):
        build_task("xbrl_term", write("nan.jsonl", '{"context": "c", "target": "nan"}'))
