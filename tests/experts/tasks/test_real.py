"""The real suite over the published files, where they are at hand; no row of them is written here."""

import json
import re
from collections import Counter
from fnmatch import fnmatch
from pathlib import Path

import pytest

from finlora.experts.base_model import load_tokenizer
from finlora.experts.errors import FinLoraError
from finlora.experts.filings.filing import read_filing
from finlora.experts.tasks import TASKS, read_examples
from finlora.experts.tasks.data_folder import data_file, data_folder
from finlora.experts.tasks.published_files import read_fpb, read_headlines, read_tfns
from finlora.experts.tasks.real import LONGEST_PROMPT, REAL_TASKS, left_out
from finlora.experts.tasks.sampling import same_text, seen_target_share
from finlora.experts.tasks.sources import build_task
from finlora.experts.tasks.suites import SPLITS, SUITES

SUITE = SUITES["real"]


def test_a_missing_data_folder_is_one_sentence(monkeypatch, tmp_path):
    """It says what to set; a folder without a file says which one."""
    monkeypatch.setenv("FINLORA_DATA", str(tmp_path / "absent"))
    with pytest.raises(FinLoraError, match="set FINLORA_DATA"):
        SUITE.examples("fpb", "test")
    monkeypatch.setenv("FINLORA_DATA", str(tmp_path))
    assert data_folder() == tmp_path
    with pytest.raises(FinLoraError, match="lacks extra/fpb_sentences_50agree"):
        SUITE.examples("fpb", "test")


@pytest.mark.parametrize("task", REAL_TASKS)
def test_splits_share_nothing_and_gold_scores_100(data, task):
    """No prompt, and no group but the empty one, is in two splits; nothing is empty or too big."""
    splits = {split: SUITE.examples(task, split) for split in ("train", "validation", "test")}
    assert SUITE.examples(task, "test") == splits["test"]
    # Documents of FinanceBench and sentences of NER are few.
    fewest = {"financebench": (20, 2, 20), "ner": (400, 50, 15), "fiqa": (400, 50, 100)}.get(
        task, (450, 50, 95)
    )
    for split, least, most in zip(splits, fewest, (2000, 200, 200), strict=True):
        assert least <= len(splits[split]) <= most
    for one, other in (("train", "validation"), ("train", "test"), ("validation", "test")):
        for part in (lambda e: e.context.rstrip(), lambda e: e.group or e.context):
            assert not {part(e) for e in splits[one]} & {part(e) for e in splits[other]}, (one, other)
    targets = [example.target for example in splits["test"]]
    assert TASKS[task].score(targets, targets) == 100.0
    assert len(set(targets)) > 1
    tokenizer = load_tokenizer("embedded")
    prompts = [example.context for examples in splits.values() for example in examples]
    longest = sorted(prompts, key=len)[-20:]
    assert len(longest[-1]) <= LONGEST_PROMPT
    # The answer must fit beside the prompt.
    tokens = max(map(len, tokenizer(longest)["input_ids"]))
    assert tokens + TASKS[task].max_new_tokens <= 1024


def test_long_prompts_are_counted(data):
    """Evidence of several pages does not fit; nothing of it is cut."""
    everything = build_task("financebench", data_file(data, "xbrl_agent/financebench.xlsx"))
    asked = [example for split in SPLITS for example in SUITE.examples("financebench", split)]
    assert left_out("financebench") == len(everything) - len(asked) > 0
    assert {example.context for example in asked} <= {example.context for example in everything}


@pytest.mark.parametrize("task", ["fpb", "fiqa", "tfns", "xbrl_term", "nwgi"])
def test_test_texts_are_not_trained_on(data, task):
    """Not even with other numbers in them."""
    train = {same_text(example) for example in SUITE.examples(task, "train")}
    assert not train & {same_text(example) for example in SUITE.examples(task, "test")}


@pytest.mark.parametrize("task", ["xbrl_tags", "xbrl_value", "xbrl_formula", "xbrl_formula_calc"])
def test_splits_share_no_company(data, task):
    """Seven filings of four companies train, one validates, two test."""
    companies = [
        {example.group.partition(": ")[0].casefold() for example in SUITE.examples(task, split)}
        for split in ("train", "validation", "test")
    ]
    train, validation, test = companies
    assert (len(validation), len(test)) == (1, 2)
    assert not train & test
    assert not train & validation
    assert not validation & test


def test_finlora_permutes_the_labels_of_tfns(data):
    """There neutral tweets are positive and bullish ones neutral; the suite has the right labels."""
    right = {
        same_text(e): e.target for e in read_tfns(data_file(data, "extra/tfns_valid_original_labels.csv"))
    }
    published = read_examples(data_file(data, "finlora/test/tfns_test.jsonl"))
    pairs = Counter((right[same_text(example)], example.target) for example in published)
    assert pairs.keys() == {("negative", "negative"), ("neutral", "positive"), ("positive", "neutral")}
    ours = SUITE.examples("tfns", "test")
    assert all(right[same_text(example)] == example.target for example in ours)


def test_wordings_are_finloras(data):
    """Prompts built from the authors' files equal FinLoRA's own, blanks at the end aside."""
    built = {
        e.context for e in read_fpb(data_file(data, "extra/fpb_sentences_50agree.csv"), part="finlora_test")
    }
    published = read_examples(data_file(data, "finlora/test/fpb_test.jsonl"))
    assert sum(example.context.rstrip() in built for example in published) > 0.95 * len(published)
    headlines = {e.context: e.target for e in read_headlines(data_file(data, "extra/gold_headlines.csv"))}
    excerpt = read_examples(data_file(data, "finlora/headline_test_excerpt.jsonl"))
    shared = [example for example in excerpt if example.context.rstrip() in headlines]
    assert len(shared) >= 20
    assert all(headlines[example.context.rstrip()] == example.target for example in shared)


def test_share_of_fnxl_tags_seen_in_training(data):
    """The other test tags cannot be learned: a bound on the score that a report must name."""
    share = seen_target_share(SUITE.examples("fnxl", "train"), SUITE.examples("fnxl", "test"))
    assert 0.4 < share < 0.8


def test_definitions_are_real(data):
    """FinLoRA's "nan" targets are gone."""
    for split in ("train", "validation", "test"):
        assert all(example.target != "nan" for example in SUITE.examples("xbrl_term", split))


@pytest.mark.parametrize(
    ("name", "facts", "duplicates", "calculations", "labels"),
    [
        ("aapl-20230930", 1164, 91, 215, 689),
        ("aapl-20250329", 760, 60, 106, 450),
        ("gahc-20240930", 899, 31, 65, 1467),
        ("gd-20240630", 1184, 148, 99, 502),
        ("msft-20150930", 1355, 0, 147, 582),
        ("nflx-20091231", 383, 0, 83, 175),
        ("nflx-20100930", 303, 0, 70, 129),
        ("nflx-20231231", 1086, 90, 136, 658),
        ("tsla-20240630", 1149, 90, 121, 545),
    ],
)
def test_filings_are_read_whole(data, name, facts, duplicates, calculations, labels):
    """Facts, repeated facts and arcs as counted by another program."""
    filing = read_filing(data_file(data, f"filings/{name}"))
    assert len(filing.facts) == facts - duplicates
    assert len(filing.calculations) == calculations
    assert 0 < len(filing.labels) <= labels
    assert not any(fact.value == "" and fact.unit for fact in filing.facts)


def test_values_equal_finloras_gold_answers(data):
    """The gold values that FinLoRA took from Apple's filing by Arelle are among the facts read here."""
    filing = read_filing(data_file(data, "filings/aapl-20230930"))
    values = {float(fact.value) for fact in filing.facts if fact.unit and fact.value}
    lines = data_file(data, "finlora/rebuilt/xbrl_extract_value_test.jsonl").read_text("utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    apple = [row["target"] for row in rows if re.search(r"Apple", row["context"])]
    assert apple
    assert all(float(target) in values for target in apple)


def test_published_files_are_sources(data):
    """`data build` takes FinLoRA's files, FNXL's table and a filing folder."""
    assert len(build_task("nwgi", data_file(data, "finlora/test/nwgi_test.jsonl"))) == 2023
    assert len(build_task("fnxl", data_file(data, "fnxl/test_sample.csv"))) == 418
    assert len(build_task("xbrl_formula", data_file(data, "filings/tsla-20240630"))) > 20


def test_checksums_of_whole_files_are_known(data):
    """FNXL's table of tags is whole there, and has all tags of the sentences."""
    said: list[str] = []
    build_task("fnxl", data_file(data, "fnxl/dev_sample.csv"), report=said.append)
    assert any("does not have: 0 of " in line for line in said)
    assert any("as published: FNXL labelCount.csv" in line for line in said)


def test_every_published_file_has_a_use_or_a_reason(data):
    """`docs/data-files.md` names each file of the data folder by a pattern."""
    text = (Path(__file__).parents[3] / "docs" / "data-files.md").read_text("utf-8")
    patterns = re.findall(r"^\| `([^`]+)` \|", text, flags=re.MULTILINE)
    files = [str(path.relative_to(data)) for path in data.rglob("*") if path.is_file()]
    unnamed = [name for name in files if not any(fnmatch(name, pattern) for pattern in patterns)]
    assert unnamed == ["README.md"]
    assert not [pattern for pattern in patterns if not any(fnmatch(name, pattern) for name in files)]
