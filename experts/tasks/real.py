"""The real suite: published data sets and SEC filings, in prompts of a few hundred tokens.

Built at run time from the data folder; no row of it is part of FinLoRA. Train and test share no text (with
numbers masked; exactly equal prompts in financial math), no definition, no document and no company; what
would be shared is dropped on one side. Prompts longer than ``LONGEST_PROMPT`` are left out and counted,
never cut.
Where only a test file was published (FiNER, NWGI, NER), it is divided, so experts of this suite have seen
rows of those test files.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from ..filings.filing import read_filing
from .corrections import without_contradictions, without_repeats
from .data_folder import data_file, data_folder
from .filing_questions import FILING_TASKS, filing_examples
from .finer_questions import single_questions
from .items import input_text
from .published_files import read_fnxl
from .sampling import same_answer, same_text, sample_groups, split_groups, without_shared
from .sources import build_task
from .task import Example

TRAIN_LIMIT = 2_000
VALIDATION_LIMIT = 200
TEST_LIMIT = 200
LONGEST_PROMPT = 1_600
"""In characters. The embedded base's tokenizer makes at most 0.58 tokens of a character in these prompts, so
that prompt and answer fit its window of 1,024 tokens."""
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


def left_out(task: str) -> int:
    """How many examples of a task are in no split because their prompts are too long."""
    pools = _all_pools(task, data_folder())
    return sum(
        not _fits(example) for pool in (pools.train, pools.test, pools.validation or []) for example in pool
    )


def _fits(example: Example) -> bool:
    return len(example.context) <= LONGEST_PROMPT


def _pools(task: str, folder: Path) -> Pools:
    pools = _all_pools(task, folder)
    train, test = list(filter(_fits, pools.train)), list(filter(_fits, pools.test))
    return Pools(train, test, None if pools.validation is None else list(filter(_fits, pools.validation)))


@cache
def _all_pools(task: str, folder: Path) -> Pools:
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
    return filing_examples(task, _filing(folder), seed=_SEED, variants=variants)


# Four tasks ask about each filing.
_filing = cache(read_filing)


def _fpb(folder: Path) -> Pools:
    train = build_task("fpb", data_file(folder, "extra/fpb_sentences_50agree.csv"), split="finlora_train")
    return _unseen(train, _finlora(folder, "test", "fpb"))


def _fiqa(folder: Path) -> Pools:
    train = build_task("fiqa", data_file(folder, "extra/fiqa_sa_train.jsonl"))
    return _unseen(train, _finlora(folder, "test", "fiqa"))


def _tfns(folder: Path) -> Pools:
    train = build_task("tfns", data_file(folder, "extra/tfns_train.csv"))
    return _unseen(train, build_task("tfns", data_file(folder, "extra/tfns_valid_original_labels.csv")))


def _nwgi(folder: Path) -> Pools:
    return _divided(_finlora(folder, "test", "nwgi"), TEST_LIMIT, by=same_text)


def _ner(folder: Path) -> Pools:
    """A third of the sentences tests, in one wording an entity; the others train in all wordings."""
    examples = without_repeats(_finlora(folder, "test", "ner"))
    pools = _divided(examples, len(examples) // 3, by=input_text)
    by_item: dict[str, list[Example]] = defaultdict(list)
    for example in pools.test:
        by_item[example.group].append(example)
    # Another wording for each entity.
    return Pools(pools.train, [rows[index % len(rows)] for index, rows in enumerate(by_item.values())])


def _headline(folder: Path) -> Pools:
    examples = build_task("headline", data_file(folder, "extra/gold_headlines.csv"))
    test, rest = split_groups(examples, 2 * TEST_LIMIT, _SEED)
    train = sample_groups(rest, 2 * TRAIN_LIMIT, _SEED)
    return Pools(without_shared(train, test, same_text), test)


def _xbrl_term(folder: Path) -> Pools:
    train, test = (_finlora(folder, split, "xbrl_term") for split in ("train", "test"))
    return _unseen(train, without_shared(test, train, same_answer))


def _financial_math(folder: Path) -> Pools:
    train, test = (_finlora(folder, split, "financial_math", "formula") for split in ("train", "test"))
    # Questions of one formula differ in little but their numbers, so only equal prompts count as shared.
    return Pools(train, without_shared(test, train, lambda example: " ".join(example.context.split())))


def _financebench(folder: Path) -> Pools:
    """A third of the questions tests. The evidence stands in the place of scanned pages, which are long."""
    examples = build_task("financebench", data_file(folder, "xbrl_agent/financebench.xlsx"))
    return _divided(examples, len(examples) // 3, by=lambda example: example.group)


def _finer(folder: Path) -> Pools:
    prompts = build_task("finer", data_file(folder, "finlora/history/finer_test_batched.jsonl"))
    examples = without_contradictions(single_questions(prompts))
    return _divided(examples, TEST_LIMIT, by=lambda example: example.group)


def _fnxl(folder: Path) -> Pools:
    test = build_task("fnxl", data_file(folder, "fnxl/test_sample.csv"))
    train: list[Example] = []
    for name in ("train_sample", "dev_sample"):
        train += read_fnxl(data_file(folder, f"fnxl/{name}.csv"), first_value_only=False)
    return Pools(without_shared(train, test, lambda example: example.group), test)


def _finlora(folder: Path, split: str, task: str, file: str | None = None) -> list[Example]:
    return build_task(task, data_file(folder, f"finlora/{split}/{file or task}_{split}.jsonl"))


def _divided(examples: list[Example], limit: int, *, by: Callable[[Example], str]) -> Pools:
    """At most ``limit`` examples to test and the others to train, with all of a key on one side."""
    keyed = [replace(example, group=by(example)) for example in examples]
    taken = {example.group for example in sample_groups(keyed, limit, _SEED)}
    test = [example for example in examples if by(example) in taken]
    return Pools([example for example in examples if by(example) not in taken], test)


def _unseen(train: list[Example], test: Iterable[Example]) -> Pools:
    return Pools(train, without_shared(test, train, same_text))


_BUILDERS: dict[str, Callable[[Path], Pools]] = {
    "fpb": _fpb,
    "fiqa": _fiqa,
    "tfns": _tfns,
    "nwgi": _nwgi,
    "headline": _headline,
    "ner": _ner,
    "finer": _finer,
    "fnxl": _fnxl,
    "xbrl_term": _xbrl_term,
    "financial_math": _financial_math,
    "financebench": _financebench,
}
REAL_TASKS = (*_BUILDERS, *FILING_TASKS)
