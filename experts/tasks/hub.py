"""Reads data sets of the Hugging Face hub, or local folders in their format, through ``datasets``."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
from datasets.exceptions import DatasetsError

from ..errors import FinLoraError
from .published_files import FINLORA_TFNS_LABELS, TFNS_LABELS, kind_of_text
from .sampling import mask_numbers
from .task import Example
from .xbrl_questions import SENTIMENTS, sentence_tag_question, sentiment_question

Row = Mapping[str, Any]

NWGI_LABELS = (
    "strong negative",
    "moderately negative",
    "mildly negative",
    "neutral",
    "mildly positive",
    "moderately positive",
    "strong positive",
)

_PARQUET = "refs/convert/parquet"
"""Branch where the hub keeps data whose own loader is a script, which ``datasets`` no longer runs."""


@dataclass(frozen=True)
class HubData:
    """Where the hub has a task and how its rows become examples.

    Attributes:
        id: Name on the hub.
        columns: What a row must have.
        examples: Makes examples of a row, whose class labels are names; True asks for FinLoRA's labels.
        config: Name of the configuration, if there are several.
        revision: Branch to read.
    """

    id: str
    columns: tuple[str, ...]
    examples: Callable[[Row, bool], list[Example]]
    config: str | None = None
    revision: str | None = None


def read_hub(task: str, source: str | Path, split: str, *, published: bool = False) -> list[Example]:
    """Examples of one split of a hub data set (its id) or of a local folder in the same format.

    Args:
        task: Name of the task.
        source: Id on the hub, or a folder.
        split: Name of the split there.
        published: Read TFNS's labels wrongly, as FinLoRA does.

    Raises:
        FinLoraError: The task has no known data set on the hub, the source cannot be loaded, has no such
            split, or lacks a column.
    """
    if task not in HUB_DATA:
        raise FinLoraError(f"No hub data set is known for {task}; there is one for {', '.join(HUB_DATA)}.")
    known = HUB_DATA[task]
    rows = _load(known, source, split)
    missing = [column for column in known.columns if column not in rows.column_names]
    if missing:
        raise FinLoraError(
            f"{source} lacks the column {missing[0]!r}; {task} needs {', '.join(known.columns)} as in "
            f"{known.id}."
        )
    try:
        return [
            example
            for row in _with_label_names(rows, known.columns)
            for example in known.examples(row, published)
        ]
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise FinLoraError(
            f"{source} has a row that is not as in {known.id}: {type(error).__name__} at {error}."
        ) from error


def _load(known: HubData, source: str | Path, split: str) -> datasets.Dataset:
    local = Path(source).is_dir()
    try:
        loaded = datasets.load_dataset(
            str(source),
            None if local else known.config,
            revision=None if local or str(source) != known.id else known.revision,
        )
    except (OSError, ValueError, RuntimeError, DatasetsError) as error:
        fault = str(error).partition("\n")[0] or type(error).__name__
        raise FinLoraError(
            f"{source} cannot be loaded as a data set: {fault}; "
            f"give a hub id such as {known.id} (with a network), or a folder with its files."
        ) from error
    if split not in loaded:
        splits = ", ".join(map(str, loaded))
        raise FinLoraError(f"{source} has no split {split!r}; it has {splits} (--split).")
    rows = loaded[split]
    assert isinstance(rows, datasets.Dataset)
    return rows


def _with_label_names(rows: datasets.Dataset, columns: Iterable[str]) -> Iterable[Row]:
    """Rows in which the numbers of class labels are replaced by the names of the classes."""
    names: dict[str, list[str]] = {}
    for column in columns:
        feature = rows.features[column]
        inner = getattr(feature, "feature", feature)
        if isinstance(inner, datasets.ClassLabel):
            names[column] = inner.names
    for row in rows:
        assert isinstance(row, dict)
        yield row | {column: _named(row[column], known) for column, known in names.items()}


def _named(value: int | list[int], names: list[str]) -> str | list[str]:
    return [names[number] for number in value] if isinstance(value, list) else names[value]


def _fpb(row: Row, _: bool) -> list[Example]:
    label = row["label"] if isinstance(row["label"], str) else SENTIMENTS[row["label"]]
    return [sentiment_question("news", row["sentence"].strip(), label)]


def _fiqa(row: Row, _: bool) -> list[Example]:
    # The published prompt tells posts from headlines; where it is missing, the text must.
    query = row.get("query")
    kind = kind_of_text(row["text"]) if query is None else "tweet" if "post" in query else "news"
    return [sentiment_question(kind, row["text"], row["answer"])]


def _tfns(row: Row, published: bool) -> list[Example]:
    coding = FINLORA_TFNS_LABELS if published else TFNS_LABELS
    return [sentiment_question("tweet", row["text"], coding[str(row["label"])])]


def _nwgi(row: Row, _: bool) -> list[Example]:
    options = "/".join(NWGI_LABELS)
    question = f"What is the sentiment of this news? Please choose an answer from {{{options}}}."
    context = f"Instruction: {question}\nInput: {row['news']}\nAnswer:"
    return [Example(context, row["label"], row["news"])]


def _instructed(row: Row, _: bool) -> list[Example]:
    context = f"Instruction: {row['instruction']}\nInput: {row['input']}\nAnswer:"
    return [Example(context, row["output"].strip())]


def _finer(row: Row, _: bool) -> list[Example]:
    sentence = " ".join(row["tokens"])
    return [
        sentence_tag_question(sentence, token, tag.removeprefix("B-"), group=mask_numbers(sentence))
        for token, tag in zip(row["tokens"], row["ner_tags"], strict=True)
        if tag.startswith("B-")
    ]


HUB_DATA: dict[str, HubData] = {
    "fpb": HubData("takala/financial_phrasebank", ("sentence", "label"), _fpb, "sentences_50agree", _PARQUET),
    "fiqa": HubData("ChanceFocus/flare-fiqasa", ("text", "answer"), _fiqa),
    "tfns": HubData("zeroshot/twitter-financial-news-sentiment", ("text", "label"), _tfns),
    "nwgi": HubData("oliverwang15/news_with_gpt_instructions", ("news", "label"), _nwgi),
    "headline": HubData("FinGPT/fingpt-headline-cls", ("instruction", "input", "output"), _instructed),
    "ner": HubData("FinGPT/fingpt-ner-cls", ("instruction", "input", "output"), _instructed),
    "finer": HubData("nlpaueb/finer-139", ("tokens", "ner_tags"), _finer, "finer-139", _PARQUET),
}
