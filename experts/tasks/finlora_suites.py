"""The suites finlora-15 and finlora-fixed: FinLoRA's 15 public tasks in its own splits and prompts.

finlora-15 keeps labels and faults, so that scores compare with published ones (by `finlora_compat`).
finlora-fixed has the corrected labels, asks each prompt once, takes from test what is also in train (from
train, where nearly all of test would go), and groups rows by what they ask.

Both are read from the data folder. A file there under FinLoRA's own name (finlora/test/…, finlora/train/…)
comes first; earlier or rebuilt versions stand in for test files that are absent. FinLoRA trains nothing on
FNXL.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ..errors import FinLoraError
from .corrections import without_repeats
from .data_folder import data_folder
from .items import masked_question
from .sampling import mask_numbers, same_answer, same_text, split_groups, without_shared
from .sources import Labels, build_task
from .table import get_task
from .task import Example

_VALIDATION_SHARE = 50
"""FinLoRA validates on 2 % of the training rows: one in 50."""
_SEED = 42


_Places = tuple[tuple[str, str | None], ...]
"""Paths below the data folder, best first, with the part to read of those that hold several."""


@dataclass(frozen=True)
class _Files:
    """Where a task is in the data folder."""

    test: _Places
    train: _Places = ()


def _jsonl(name: str, *fallbacks: str) -> _Places:
    return tuple((path, None) for path in (f"finlora/{name}.jsonl", *fallbacks))


_FILES: dict[str, _Files] = {
    "fpb": _Files(_jsonl("test/fpb_test"), (("extra/fpb_sentences_50agree.csv", "finlora_train"),)),
    "fiqa": _Files(_jsonl("test/fiqa_test"), (("extra/fiqa_sa_train.jsonl", None),)),
    "tfns": _Files(_jsonl("test/tfns_test"), (("extra/tfns_train.csv", None),)),
    "nwgi": _Files(_jsonl("test/nwgi_test"), _jsonl("train/nwgi_train")),
    "headline": _Files(
        _jsonl("test/headline_test", "finlora/headline_test_excerpt.jsonl"), _jsonl("train/headline_train")
    ),
    "ner": _Files(_jsonl("test/ner_test"), _jsonl("train/ner_train")),
    "finer": _Files(
        _jsonl("test/finer_test_batched", "finlora/history/finer_test_batched.jsonl"),
        _jsonl("train/finer_train_batched"),
    ),
    "fnxl": _Files(_jsonl("test/fnxl_test_batched", "finlora/rebuilt/fnxl_test_batched.jsonl")),
    "xbrl_term": _Files(_jsonl("test/xbrl_term_test"), _jsonl("train/xbrl_term_train")),
    "xbrl_tags": _Files(
        _jsonl("test/xbrl_extract_tags_test", "finlora/rebuilt/xbrl_extract_tags_test.jsonl"),
        _jsonl("train/xbrl_extract_train_tags"),
    ),
    "xbrl_value": _Files(
        _jsonl("test/xbrl_extract_value_test", "finlora/rebuilt/xbrl_extract_value_test.jsonl"),
        _jsonl("train/xbrl_extract_train_value"),
    ),
    "xbrl_formula": _Files(
        _jsonl("test/xbrl_extract_formula_test", "finlora/rebuilt/xbrl_extract_formula_test.jsonl"),
        _jsonl("train/xbrl_extract_train_formula", "finlora/rebuilt/xbrl_extract_train_formula.jsonl"),
    ),
    "xbrl_formula_calc": _Files(
        _jsonl(
            "test/xbrl_extract_formula_calculations_test",
            "finlora/rebuilt/xbrl_extract_formula_calculations_test.jsonl",
        ),
        _jsonl(
            "train/xbrl_extract_train_formula_calculations",
            "finlora/rebuilt/xbrl_extract_train_formula_calculations.jsonl",
        ),
    ),
    "financial_math": _Files(_jsonl("test/formula_test"), _jsonl("train/formula_train")),
    "financebench": _Files(_jsonl("test/financebench_test"), _jsonl("train/financebench_train")),
}
FINLORA_TASKS = tuple(_FILES)
_FIXED_FILES = _FILES | {
    "headline": _Files(
        _FILES["headline"].test, (*_FILES["headline"].train, ("extra/gold_headlines.csv", None))
    ),
    "fnxl": _Files((("fnxl/test_sample.csv", None),), (("fnxl/train_sample.csv", None),)),
}
"""With the authors' own tables where FinLoRA's files cannot be corrected or are absent. FNXL's questions are
asked one by one, without the list of tags."""


def finlora_15_examples(task: str, split: str) -> list[Example]:
    """Examples as FinLoRA published them: its test files, its training rows, 2 % of these for validation.

    Raises:
        FinLoraError: The data folder holds no file for this split of the task.
    """
    folder = data_folder()
    if split == "test":
        return list(_read(_FILES[task], task, "test", "published", folder))
    return _validation_or_train(list(_read(_FILES[task], task, "train", "published", folder)), split)


def finlora_fixed_examples(task: str, split: str) -> list[Example]:
    """Corrected examples, each prompt once, with nothing of test in train.

    Raises:
        FinLoraError: The data folder holds no file for this split of the task.
    """
    folder = data_folder()
    train, test = _fixed(task, folder)
    if split == "test":
        return list(test)
    if not train:
        raise _absent(_FIXED_FILES[task].train, task, "train", folder)
    return _validation_or_train(list(train), split)


@cache
def _fixed(task: str, folder: Path) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
    """Train, empty where there is no file, and test."""
    files = _FIXED_FILES[task]
    has_train = _find(files.train, folder) is not None
    train = without_repeats(_read(files, task, "train", "corrected", folder)) if has_train else []
    test = without_repeats(_read(files, task, "test", "corrected", folder))
    if task in _FILTERED_TRAIN:
        train = without_shared(train, test, _FILTERED_TRAIN[task])
    else:
        for key in _FILTERED_TEST.get(task, (same_text,)):
            test = without_shared(test, train, key)
    return tuple(train), tuple(test)


def _group(example: Example) -> str:
    return example.group


_FILTERED_TEST: dict[str, tuple[Callable[[Example], str], ...]] = {
    "xbrl_term": (same_text, same_answer),
    "financebench": (_group,),
    # Questions of one formula differ in little but their numbers, so only equal prompts count as shared.
    "financial_math": (lambda example: " ".join(example.context.split()),),
}
_FILTERED_TRAIN: dict[str, Callable[[Example], str]] = {
    **dict.fromkeys(("xbrl_tags", "xbrl_value", "xbrl_formula", "xbrl_formula_calc"), masked_question),
    "headline": lambda example: mask_numbers(example.group),
    "fnxl": _group,
}
"""Where nearly all of test is in train, or where test is small and train is not: train gives way."""


def _validation_or_train(train: list[Example], split: str) -> list[Example]:
    largest_group = max(Counter(example.group or example.context for example in train).values(), default=0)
    limit = max(len(train) // _VALIDATION_SHARE, largest_group)
    validation, rest = split_groups(train, limit, _SEED)
    return validation if split == "validation" else rest


@cache
def _read(files: _Files, task: str, part: str, labels: Labels, folder: Path) -> tuple[Example, ...]:
    places = files.test if part == "test" else files.train
    found = _find(places, folder)
    if found is None:
        raise _absent(places, task, part, folder)
    path, split = found
    return tuple(build_task(task, path, labels=labels, split=split))


def _find(places: _Places, folder: Path) -> tuple[Path, str | None] | None:
    return next(((folder / name, split) for name, split in places if (folder / name).exists()), None)


def _absent(places: _Places, task: str, part: str, folder: Path) -> FinLoraError:
    title = get_task(task).title
    if not places:
        return FinLoraError(f"FinLoRA has no {part} data for {title}; choose another task or suite.")
    wanted = " or ".join(name for name, _ in places)
    return FinLoraError(
        f"{folder} has no {part} file for {title}; put {wanted} there, or leave the task out."
    )
