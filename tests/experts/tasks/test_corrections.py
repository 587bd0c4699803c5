"""Faults of published rows and what becomes of them: on invented rows, and on real files where at hand."""

import csv
from collections import Counter
from dataclasses import replace

import pytest

from finlora.experts.tasks import TASKS, Example, read_examples
from finlora.experts.tasks.corrections import corrected, without_contradictions, without_repeats
from finlora.experts.tasks.data_folder import data_file
from finlora.experts.tasks.items import masked_question, with_item
from finlora.experts.tasks.real import REAL_TASKS
from finlora.experts.tasks.scorers import parse_number

MATH = (
    "Use formula {} to answer the question. Answer with a numerical answer with 2 decimal places and with no "
    'explanations or other text. Formula: F, Explanation: E. Question:  "Q{}". Answer:'
)
FILES = {
    "fpb": ("finlora/test/fpb_test.jsonl",),
    "fiqa": ("finlora/test/fiqa_test.jsonl",),
    "tfns": ("finlora/test/tfns_test.jsonl",),
    "nwgi": ("finlora/test/nwgi_test.jsonl",),
    "headline": ("finlora/headline_test_excerpt.jsonl",),
    "ner": ("finlora/test/ner_test.jsonl",),
    "xbrl_term": ("finlora/test/xbrl_term_test.jsonl", "finlora/train/xbrl_term_train.jsonl"),
    "financial_math": ("finlora/test/formula_test.jsonl", "finlora/train/formula_train.jsonl"),
    "financebench": ("finlora/test/financebench_test.jsonl", "finlora/train/financebench_train.jsonl"),
    "finer": ("finlora/history/finer_test_batched.jsonl",),
    "fnxl": ("finlora/rebuilt/fnxl_test_batched.jsonl", "finlora/history/fnxl_test_batched.jsonl"),
    "xbrl_tags": (
        "finlora/rebuilt/xbrl_extract_tags_test.jsonl",
        "finlora/history/2025-03-13/xbrl_xbrl_tags_test.jsonl",
    ),
    "xbrl_value": (
        "finlora/rebuilt/xbrl_extract_value_test.jsonl",
        "finlora/history/2025-03-10/xbrl_value_test.jsonl",
        "finlora/history/2025-03-13/xbrl_value_test.jsonl",
    ),
    "xbrl_formula": (
        "finlora/rebuilt/xbrl_extract_formula_test.jsonl",
        "finlora/rebuilt/xbrl_extract_train_formula.jsonl",
    ),
    "xbrl_formula_calc": (
        "finlora/rebuilt/xbrl_extract_formula_calculations_test.jsonl",
        "finlora/rebuilt/xbrl_extract_train_formula_calculations.jsonl",
        "finlora/history/2025-03-13/xbrl_formula_test.jsonl",
    ),
}
"""Every file in FinLoRA's form, by task."""


def rows_of(data, task: str) -> list[Example]:
    """All rows of a task as published."""
    return [example for name in FILES[task] for example in read_examples(data_file(data, name))]


def test_math_answers():
    """Net present values and wrong zeros go, a second decimal is added, one blank stands before quotes."""
    rows = [
        Example(MATH.format("Net Present Value (NPV)", 1), "10.00"),
        Example(MATH.format("Unemployment Rate", 2), "0.0"),
        Example(MATH.format("Balance of Trade", 3), "0.0"),
        Example(MATH.format("Beta", 4), "1.5"),
        Example(MATH.format("Beta", 5), "1.125"),
    ]
    kept, done = corrected("financial_math", rows)
    assert [example.target for example in kept] == ["0.00", "1.50", "1.125"]
    assert all('Question: "Q' in example.context for example in kept)
    assert "wrong net present values and zeros: 2 dropped" in done


def test_finer_prompts():
    """No empty tag, and as many questions as there are."""
    context = (
        "You are XBRL expert.  Here is a list of US GAAP tags options: ,A,B,,C. Answer the following 4 "
        "independent questions by providing only  4 US GAAP tags answers in the order of the questions."
    )
    (fixed,), _ = corrected("finer", [Example(context, "A,B")])
    assert "options: A,B,C. Answer the following 2 independent" in fixed.context
    assert "only  2 US GAAP" in fixed.context


def test_formula_questions_do_not_give_the_answer_away():
    """The residue of a regular expression goes; anything like it elsewhere stays."""
    context = "XML File: <x>* 100')</>\n\nQuestion: What is the margin of A for FY 2023?  * 100')\nAnswer:"
    (fixed,), done = corrected("xbrl_formula", [Example(context, "a / b * 100")])
    assert (
        fixed.context == "XML File: <x>* 100')</>\n\nQuestion: What is the margin of A for FY 2023? \nAnswer:"
    )
    assert done == ["question gives away * 100: 1 corrected"]


def test_tags_that_cannot_be_answered():
    """Numbers, and tags of a company's own; a tag without prefix stays."""
    rows = [Example(f"c{i}", tag) for i, tag in enumerate(["us-gaap:A", "4131000000.0", "jpm:B", "C"])]
    assert [example.target for example in corrected("xbrl_tags", rows)[0]] == ["us-gaap:A", "C"]


def test_contradictions_and_repeats():
    """A prompt with two answers has none; repeats count once; blanks do not make another prompt."""
    rows = [Example("a", "1"), Example("a ", "2"), Example("b", "1"), Example("b\n", "1")]
    assert without_contradictions(rows) == rows[2:]
    assert without_repeats(rows[2:]) == rows[2:3]


@pytest.mark.parametrize("task", FILES)
def test_corrections_settle_and_gold_scores_100(data, task):
    """Correcting twice is correcting once; every published answer scores 100 against itself."""
    published = rows_of(data, task)
    kept, _ = corrected(task, published)
    kept = [with_item(task, example) for example in kept]
    again, done = corrected(task, kept)
    assert (again, done) == (kept, [])
    for rows in (published, kept):
        targets = [example.target for example in rows]
        assert TASKS[task].score(targets, targets) == 100
    assert all(example.group for example in kept) or task == "financial_math"


def test_tfns_labels_are_put_right(data):
    """Checked against the data set's own labels, text by text."""
    with data_file(data, "extra/tfns_valid_original_labels.csv").open(encoding="utf-8", newline="") as file:
        own = {row["text"]: row["label"] for row in csv.DictReader(file)}
    meaning = {"0": "negative", "1": "positive", "2": "neutral"}
    texts = {
        example.context.split("\nInput: ")[1].removesuffix("\nAnswer: "): example.target
        for example in corrected("tfns", rows_of(data, "tfns"))[0]
    }
    shared = own.keys() & texts.keys()
    assert len(shared) > 500
    assert all(texts[text] == meaning[own[text]] for text in shared)


def test_paraphrases_are_one_item(data):
    """Five wordings of an XBRL question; 17 or more of an entity, in as many groups as sentences."""
    for task in ("xbrl_tags", "xbrl_value", "xbrl_formula", "xbrl_formula_calc"):
        rows = read_examples(data_file(data, FILES[task][0]))
        sizes = Counter(with_item(task, example).group for example in rows)
        assert set(sizes.values()) == {5}
        assert all(masked_question(example) for example in rows)
    rows = rows_of(data, "ner")
    sizes = Counter(with_item("ner", example).group for example in rows)
    assert all(size % 17 == 0 for size in sizes.values())
    assert sum(size // 17 for size in sizes.values()) == len(rows) // 17
    assert len(sizes) == len({example.context.partition("\nInput: ")[2] for example in rows})


def test_leaking_formula_questions_are_freed(data):
    """Many of the published ones end in part of the answer, none of the corrected ones."""
    rows = rows_of(data, "xbrl_formula")
    assert sum("* 100')" in example.context for example in rows) > 10
    assert not any("* 100')" in example.context for example in corrected("xbrl_formula", rows)[0])


def test_numbers_are_no_tags(data):
    """They are dropped, and nothing else."""
    rows = rows_of(data, "xbrl_tags")
    kept, _ = corrected("xbrl_tags", rows)
    dropped = [example for example in rows if example.target not in {one.target for one in kept}]
    assert dropped
    assert all(parse_number(example.target) is not None for example in dropped)


def test_price_question_contradicts_the_headlines(data):
    """Its answers equal those to another question, headline by headline; it is dropped."""
    answers = {example.context: example.target for example in rows_of(data, "headline")}
    pairs = [
        (answer, answers[context.replace("about price?", "about price staying constant?")])
        for context, answer in answers.items()
        if "about price?" in context
    ]
    assert len(pairs) == 8
    assert all(one == other for one, other in pairs)
    kept, _ = corrected("headline", rows_of(data, "headline"))
    assert not any("about price?" in example.context for example in kept)


def test_wrong_math_is_gone(data):
    """The net present value that the card gives as an example is among the dropped."""
    rows = rows_of(data, "financial_math")
    kept, _ = corrected("financial_math", rows)
    assert "21462.58" in {example.target for example in rows} - {example.target for example in kept}
    assert all("Net Present Value" not in example.context.partition(" to answer")[0] for example in kept)


NAMED = {
    1: ("tfns", "14.5 %"),
    2: ("finer", "85 to 92 %"),
    3: ("xbrl_value", "pandas 2"),
    4: ("xbrl_tags", "215 of 2,945"),
    5: ("xbrl_formula", "all 835 test questions"),
    6: ("xbrl_formula", "450 of 835"),
    7: ("ner", "206 entity mentions"),
    8: ("fiqa", "16 of 235"),
    9: ("xbrl_term", "6 train rows"),
    10: ("headline", "staying constant"),
    11: ("financial_math", "net present values"),
    12: ("fpb", "970"),
    13: ("fnxl", "19 sentences"),
    14: ("xbrl_value", "39 of 104"),
    15: ("xbrl_value", "noncontrolling"),
    16: ("headline", "166 rows"),
}


@pytest.mark.parametrize(("task", "words"), NAMED.values(), ids=map(str, NAMED))
def test_each_known_fault_is_named_with_what_is_done(task, words):
    """In the data card of a task that has it."""
    faults = [fault for fault in TASKS[task].card.faults if words in fault.found]
    assert faults
    assert all(fault.handling for fault in faults)


def test_every_task_has_a_card():
    """With files, faults or notes; what a suite asks names its published files."""
    for name, task in TASKS.items():
        assert task.card.lines(), name
        assert task.prompt
        assert task.answer_form
        if name in REAL_TASKS:
            assert task.card.files, name
            assert len({replace(file, sha256=None) for file in task.card.files}) == len(task.card.files)
