"""The suites finlora-15 and finlora-fixed over the published files, where they are at hand."""

import json

import pytest

from finlora.experts.errors import FinLoraError
from finlora.experts.tasks import TASKS, read_examples
from finlora.experts.tasks.data_folder import data_file
from finlora.experts.tasks.finlora_suites import FINLORA_TASKS
from finlora.experts.tasks.items import input_text
from finlora.experts.tasks.sampling import same_text
from finlora.experts.tasks.suites import SPLITS, SUITES

PUBLISHED, FIXED = SUITES["finlora-15"], SUITES["finlora-fixed"]


def splits_of(suite, task):
    """The splits of a task that the data folder has."""
    found = {}
    for split in SPLITS:
        try:
            found[split] = suite.examples(task, split)
        except FinLoraError:
            assert split != "test"
    return found


def test_there_are_15_public_tasks():
    """FinLoRA's 19 without the three CFA levels and CPA REG."""
    assert len(FINLORA_TASKS) == 15
    assert TASKS.keys() - set(FINLORA_TASKS) == {
        "sentiment",
        "cfa_level1",
        "cfa_level2",
        "cfa_level3",
        "cpa_reg",
    }


@pytest.mark.parametrize("task", FINLORA_TASKS)
def test_published_rows_are_untouched(data, task):
    """Prompts and answers of every test row are those of the file; gold scores 100; splits are disjoint."""
    splits = splits_of(PUBLISHED, task)
    targets = [example.target for example in splits["test"]]
    assert TASKS[task].score(targets, targets) == 100
    if task in ("fpb", "tfns", "financial_math", "finer"):
        name = {"financial_math": "test/formula_test", "finer": "history/finer_test_batched"}
        rows = read_examples(data_file(data, f"finlora/{name.get(task, f'test/{task}_test')}.jsonl"))
        assert [(e.context, e.target) for e in splits["test"]] == [(e.context, e.target) for e in rows]
    if "train" in splits:
        assert splits["validation"]
        groups = [{e.group or e.context for e in splits[split]} for split in ("train", "validation")]
        assert not groups[0] & groups[1]


@pytest.mark.parametrize("task", FINLORA_TASKS)
def test_fixed_rows_are_asked_once_and_not_trained_on(data, task):
    """No prompt twice, none in train even with other numbers or its group, and gold scores 100."""
    splits = splits_of(FIXED, task)
    test = splits["test"]
    prompts = [" ".join(example.context.split()) for example in test]
    assert len(set(prompts)) == len(prompts) > 0
    targets = [example.target for example in test]
    assert TASKS[task].score(targets, targets) == 100
    trained = [*splits.get("train", []), *splits.get("validation", [])]
    if task != "financial_math":
        assert not {same_text(example) for example in trained} & {same_text(example) for example in test}
        assert not {example.group for example in trained} & {example.group for example in test}


def test_fixed_is_smaller_by_what_is_wrong(data):
    """Labels of TFNS differ in most rows; numbers are no tags; leaks and repeats are gone."""
    right = {same_text(e): e.target for e in FIXED.examples("tfns", "test")}
    wrong = {same_text(e): e.target for e in PUBLISHED.examples("tfns", "test")}
    assert 0.1 < sum(wrong[text] == target for text, target in right.items()) / len(right) < 0.2
    for task in ("fpb", "fiqa", "ner", "xbrl_tags", "xbrl_term", "financebench", "financial_math"):
        assert len(FIXED.examples(task, "test")) < len(PUBLISHED.examples(task, "test")), task
    ner = FIXED.examples("ner", "test")
    assert len({example.group for example in ner}) == len({input_text(example) for example in ner})


def test_finloras_own_file_comes_first(tmp_path, monkeypatch):
    """A stand-in is read only while it is absent; what is absent is named."""
    monkeypatch.setenv("FINLORA_DATA", str(tmp_path))
    with pytest.raises(
        FinLoraError, match=r"has no test file for Headline yes/no; put finlora/test/headline"
    ):
        PUBLISHED.examples("headline", "test")
    with pytest.raises(FinLoraError, match="FinLoRA has no train data for Numeral tagging"):
        PUBLISHED.examples("fnxl", "train")
    prompt = "Instruction: Is it? Please choose an answer from {{Yes/No}}.\nInput: {}\nAnswer: "
    for name in ("headline_test_excerpt", "test/headline_test"):
        path = tmp_path / "finlora" / f"{name}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"context": prompt.format(name), "target": "Yes"}), encoding="utf-8")
    (example,) = PUBLISHED.examples("headline", "test")
    assert example.group == "test/headline_test"
