"""Reads published data sets in the form their authors gave them: sentences, tweets, headlines, numerals."""

import ast
import csv
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from ..errors import FinLoraError
from .examples import read_examples, read_records
from .finlora_prompts import fnxl_prompts
from .sampling import mask_numbers
from .task import Example
from .xbrl_questions import (
    HEADLINE_QUESTIONS,
    SENTIMENTS,
    headline_question,
    sentence_tag_question,
    sentiment_question,
)

TFNS_LABELS = {"0": "negative", "1": "positive", "2": "neutral"}
"""The data set's own coding: 0 bearish, 1 bullish, 2 neutral."""
FINLORA_TFNS_LABELS = {"0": "negative", "1": "neutral", "2": "positive"}
"""What FinLoRA's code makes of it, wrongly."""

_HEADLINE_COLUMNS = {
    "up": "Price Direction Up",
    "constant": "Price Direction Constant",
    "down": "Price Direction Down",
    "comparison": "Asset Comparision",
}
_FINANCEBENCH_FORM = "every line must be a JSON object with context, target and url"
_FIQA_FORM = 'every line must be a JSON object such as {"text": "a headline", "label": "neutral"}'
_TWEET = re.compile(r"\$[A-Za-z]|https?://|@\w|#\w|!")


def read_fpb(path: Path, part: str | None = None) -> list[Example]:
    """Financial PhraseBank table (sentence, label); with ``part``, only rows of that ``finlora_split``."""
    rows = read_rows(path, ("sentence", "label", "finlora_split") if part else ("sentence", "label"))
    return [
        sentiment_question("news", row["sentence"], _sentiment(row["label"], path))
        for row in rows
        if part is None or row["finlora_split"] == part
    ]


def read_tfns(path: Path, *, published: bool = False) -> list[Example]:
    """Table of tweets (text, label) with the data set's own labels 0, 1, 2; ``published`` misreads them."""
    coding = FINLORA_TFNS_LABELS if published else TFNS_LABELS
    return [
        sentiment_question("tweet", row["text"], _sentiment(coding.get(row["label"], row["label"]), path))
        for row in read_rows(path, ("text", "label"))
    ]


def read_fiqa(path: Path) -> list[Example]:
    """JSONL of texts with a sentiment (text, label); microblog posts are told from news by their symbols."""
    examples = []
    for where, record in read_records(path, _FIQA_FORM):
        text, label = record.get("text"), record.get("label")
        if not isinstance(text, str) or not isinstance(label, str):
            raise FinLoraError(f"{where}: no text and label; {_FIQA_FORM}.")
        examples.append(sentiment_question(kind_of_text(text), text, _sentiment(label, path)))
    return examples


def kind_of_text(text: str) -> str:
    """Whether a text with ticker signs, links or mentions is a "tweet", or one without is "news"."""
    return "tweet" if _TWEET.search(text) else "news"


def read_headlines(path: Path) -> list[Example]:
    """Tab-separated gold headlines; four questions a headline, the four that FinLoRA shares with this table.

    FinLoRA's other five are not here: it asks apart for prices and events in past and future, which the table
    joins, and its answers to "talk about price?" contradict the headlines.
    """
    rows = read_rows(path, ("News", *_HEADLINE_COLUMNS.values()), delimiter="\t")
    return [
        headline_question(row["News"], HEADLINE_QUESTIONS[key], row[column] == "1")
        for row in rows
        for key, column in _HEADLINE_COLUMNS.items()
    ]


def read_fnxl(path: Path, *, first_value_only: bool) -> list[Example]:
    """FNXL table: one question a sentence and tag (first value, as FinLoRA asks) or also a value.

    Values that stand for two tags in one sentence are left out. The prompt is FinLoRA's without its list of
    587 tags. The group is the sentence with its numbers masked.
    """
    examples = []
    for sentence, values_by_tag in _tagged_sentences(path):
        pairs = [(tag, value) for tag, values in values_by_tag.items() for value in dict.fromkeys(values)]
        tags_of_value = Counter(value for _, value in pairs)
        asked: set[str] = set()
        for tag, value in pairs:
            if tags_of_value[value] == 1 and not (first_value_only and tag in asked):
                asked.add(tag)
                examples.append(sentence_tag_question(sentence, value, tag, group=mask_numbers(sentence)))
    return examples


def read_fnxl_as_published(path: Path) -> list[Example]:
    """FNXL table in FinLoRA's prompts: four questions each under the list of all tags of the table."""
    questions = [
        (sentence, values[0], tag.removeprefix("us-gaap:"))
        for sentence, values_by_tag in _tagged_sentences(path)
        for tag, values in values_by_tag.items()
        if values
    ]
    return fnxl_prompts(questions, {tag for _, _, tag in questions})


def read_financebench_rows(path: Path) -> list[Example]:
    """FinLoRA's FinanceBench JSONL, whose rows also have the url of a document, which is the group."""
    urls = [record.get("url", "") for _, record in read_records(path, _FINANCEBENCH_FORM)]
    pairs = zip(read_examples(path), urls, strict=True)
    return [replace(example, group=example.group or str(url)) for example, url in pairs]


def read_fnxl_tags(path: Path) -> set[str]:
    """The tags, without prefix, of FNXL's labelCount.csv, which has no header: number, tag, count.

    Raises:
        FinLoraError: The file cannot be read, or is another table.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return {row[1].removeprefix("us-gaap:") for row in csv.reader(file)}
    except (OSError, UnicodeDecodeError, csv.Error, IndexError) as error:
        raise FinLoraError(
            f"{path} is no table of number, tag and count ({error}); get FNXL's own, or move it away."
        ) from error


def _tagged_sentences(path: Path) -> Iterator[tuple[str, dict[str, list[str]]]]:
    for row in read_rows(path, ("sentence", "numerals-tags")):
        try:
            values_by_tag = ast.literal_eval(row["numerals-tags"])
            yield row["sentence"], {tag: list(values) for tag, values in values_by_tag.items()}
        except (ValueError, SyntaxError, AttributeError, TypeError, RecursionError) as error:
            raise FinLoraError(
                f"{path}: column numerals-tags holds {row['numerals-tags'][:60]!r}; "
                "it needs a tag with its numerals, such as {'us-gaap:Goodwill': ['19.5']}."
            ) from error


def read_rows(
    path: Path, columns: tuple[str, ...], *, optional: tuple[str, ...] = (), delimiter: str = ","
) -> list[dict[str, str]]:
    """The rows of a CSV table without surrounding blanks; an optional column that is missing is empty.

    Raises:
        FinLoraError: The file cannot be read, lacks a column, or has no rows.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, delimiter=delimiter)
            missing = [column for column in columns if column not in (reader.fieldnames or ())]
            rows = [] if missing else list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise FinLoraError(f"{path} cannot be read as a table: {error}.") from error
    if missing or not rows:
        fault = f"lacks the column {missing[0]!r}" if missing else "has no rows"
        raise FinLoraError(f"{path} {fault}; the table needs the columns {', '.join(columns)}.")
    return [{name: (row.get(name) or "").strip() for name in (*columns, *optional)} for row in rows]


def _sentiment(label: str, path: Path) -> str:
    if label not in SENTIMENTS:
        raise FinLoraError(f"{path} has the label {label!r}; allowed are {', '.join(SENTIMENTS)}.")
    return label
