"""The real suite: published data sets and SEC filings, in prompts of a few hundred tokens.

Built at run time from the data folder; no row of it is part of FinLoRA. Train and test share no text (with
numbers masked; exactly equal prompts in financial math), no definition and no company; what would be shared
is dropped on one side.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ..filings.filing import read_filing
from .data_folder import data_file, data_folder
from .examples import read_examples
from .filing_questions import FILING_TASKS, filing_examples
from .published_files import read_fiqa, read_fnxl, read_fpb, read_headlines, read_tfns
from .sampling import same_answer, same_text, sample_groups, split_groups, without_shared
from .task import Example

TRAIN_LIMIT = 2_000
VALIDATION_LIMIT = 200
TEST_LIMIT = 200
_SEED = 0

_TRAIN_FILINGS = (
    "aapl-20230930",
    "aapl-20250329",
    "amzn-20221231",
    "msft-20150930",
    "nflx-20091231",
    "nflx-20100930",
    "nflx-20231231",
)
_VALIDATION_FILINGS = ("gahc-20240930",)
_TEST_FILINGS = ("gd-20240630", "tsla-20240630")
_FORMULA_VARIANTS = {_TRAIN_FILINGS: 8, _VALIDATION_FILINGS: 4, _TEST_FILINGS: 3}


@dataclass(frozen=True)
class Pools:
    """Everything there is for a task, before sampling; validation is carved from train when absent."""

    train: list[Example]
    test: list[Example]
    validation: list[Example] | None = None


def real_examples(task: str, split: str) -> list[Example]:
    """Examples of one task and split (train, validation or test), the same at every call."""
    pools = _pools(task, data_folder())
    if split == "test":
        return sample_groups(pools.test, TEST_LIMIT, _SEED)
    validation, train = pools.validation, pools.train
    if validation is None:
        validation, train = split_groups(train, min(VALIDATION_LIMIT, len(train) // 10), _SEED)
    if split == "validation":
        return sample_groups(validation, VALIDATION_LIMIT, _SEED)
    return sample_groups(train, TRAIN_LIMIT, _SEED)


@cache
def _pools(task: str, folder: Path) -> Pools:
    if task in FILING_TASKS:
        return _filings(task, folder)
    return _BUILDERS[task](folder)


def _filings(task: str, folder: Path) -> Pools:
    train, validation, test = (
        [
            example
            for name in names
            for example in _of_filing(task, data_file(folder, f"filings/{name}"), variants)
        ]
        for names, variants in _FORMULA_VARIANTS.items()
    )
    return Pools(train, test, validation)


def _of_filing(task: str, folder: Path, formula_variants: int) -> list[Example]:
    variants = formula_variants if task.startswith("xbrl_formula") else 1
    return filing_examples(task, read_filing(folder), seed=_SEED, variants=variants)


def _fpb(folder: Path) -> Pools:
    train = read_fpb(data_file(folder, "extra/fpb_sentences_50agree.csv"), part="finlora_train")
    return _unseen(train, _finlora_test(folder, "fpb"))


def _fiqa(folder: Path) -> Pools:
    train = read_fiqa(data_file(folder, "extra/fiqa_sa_train.jsonl"))
    return _unseen(train, _finlora_test(folder, "fiqa"))


def _tfns(folder: Path) -> Pools:
    train = read_tfns(data_file(folder, "extra/tfns_train.csv"))
    return _unseen(train, read_tfns(data_file(folder, "extra/tfns_valid_original_labels.csv")))


def _headline(folder: Path) -> Pools:
    examples = read_headlines(data_file(folder, "extra/gold_headlines.csv"))
    test, rest = split_groups(examples, 2 * TEST_LIMIT, _SEED)
    train = sample_groups(rest, 2 * TRAIN_LIMIT, _SEED)
    return Pools(without_shared(train, test, same_text), test)


def _xbrl_term(folder: Path) -> Pools:
    train, test = (
        [
            example
            for example in read_examples(data_file(folder, f"finlora/{split}/xbrl_term_{split}.jsonl"))
            if is_definition(example)
        ]
        for split in ("train", "test")
    )
    return _unseen(train, without_shared(test, train, same_answer))


def _financial_math(folder: Path) -> Pools:
    train = read_examples(data_file(folder, "finlora/train/formula_train.jsonl"))
    test = read_examples(data_file(folder, "finlora/test/formula_test.jsonl"))
    # Questions of one formula differ in little but their numbers, so only equal prompts count as shared.
    return Pools(train, without_shared(test, train, lambda example: " ".join(example.context.split())))


def _fnxl(folder: Path) -> Pools:
    test = read_fnxl(data_file(folder, "fnxl/test_sample.csv"), first_value_only=True)
    train: list[Example] = []
    for name in ("train_sample", "dev_sample"):
        train += read_fnxl(data_file(folder, f"fnxl/{name}.csv"), first_value_only=False)
    return Pools(without_shared(train, test, lambda example: example.group), test)


def _finlora_test(folder: Path, task: str) -> list[Example]:
    return read_examples(data_file(folder, f"finlora/test/{task}_test.jsonl"))


def _unseen(train: list[Example], test: Iterable[Example]) -> Pools:
    return Pools(train, without_shared(test, train, same_text))


def is_definition(example: Example) -> bool:
    """Whether a term example has a definition; empty cells became the text "nan" in FinLoRA's files."""
    return example.target.casefold() != "nan"


_BUILDERS: dict[str, Callable[[Path], Pools]] = {
    "fpb": _fpb,
    "fiqa": _fiqa,
    "tfns": _tfns,
    "headline": _headline,
    "xbrl_term": _xbrl_term,
    "financial_math": _financial_math,
    "fnxl": _fnxl,
}
REAL_TASKS = (*_BUILDERS, *FILING_TASKS)
