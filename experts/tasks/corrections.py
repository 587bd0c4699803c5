"""What is corrected in published rows: functions that return an example as it should be, or None to drop it.

Each fault is named in the data card of its task. Corrections change nothing in rows that are right, so they
may be applied again, except for TFNS: see ``_true_sentiment``.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace

from .scorers import parse_number
from .task import Example

Correction = Callable[[Example], Example | None]

_FORMULA_NAME = re.compile(r"^Use formula (.*?) to answer the question\.")
_BLANKS_BEFORE_QUESTION = re.compile(r"(?<=\. Question: )\s+")
_RESIDUE = re.compile(r"\s*\* 100'\)(?=\s*\nAnswer:\s*$)")
_TAG_OPTIONS = re.compile(r"(?<=Here is a list of US GAAP tags options: )(.*?)(?=\. Answer the following )")
_NUMBER_OF_QUESTIONS = re.compile(
    r"Answer the following \d+ independent questions by providing only  \d+ US GAAP"
)
_ABOUT_PRICE = "Does the news headline talk about price?"
_TFNS_TRUTH = {"negative": "negative", "neutral": "positive", "positive": "neutral"}
_SPREADSHEET_EMPTY = "nan"


def corrected(task: str, examples: Sequence[Example]) -> tuple[list[Example], list[str]]:
    """The examples without what is wrong in published files, and what was done in sentences with counts."""
    done: list[str] = []
    kept = list(examples)
    for title, correction in CORRECTIONS.get(task, ()):
        results = [(example, correction(example)) for example in kept]
        dropped = sum(result is None for _, result in results)
        changed = sum(result is not None and result != example for example, result in results)
        kept = [result for _, result in results if result is not None]
        done += [
            f"{title}: {count:,} {verb}"
            for count, verb in ((changed, "corrected"), (dropped, "dropped"))
            if count
        ]
    consistent = without_contradictions(kept)
    if len(consistent) < len(kept):
        done.append(f"one prompt with different answers: {len(kept) - len(consistent):,} dropped")
    return consistent, done


def without_contradictions(examples: Sequence[Example]) -> list[Example]:
    """The examples whose prompt has one answer only."""
    answers: dict[str, set[str]] = defaultdict(set)
    for example in examples:
        answers[_prompt(example)].add(example.target)
    return [example for example in examples if len(answers[_prompt(example)]) == 1]


def without_repeats(examples: Sequence[Example]) -> list[Example]:
    """The first example of each prompt."""
    return list({_prompt(example): example for example in reversed(examples)}.values())[::-1]


def is_definition(example: Example) -> bool:
    """Whether a term and its explanation are words; empty cells became the text "nan" in FinLoRA's files."""
    return example.target.casefold() != _SPREADSHEET_EMPTY and "sentence: nan. Answer" not in example.context


def _prompt(example: Example) -> str:
    return " ".join(example.context.split())


def _keep_if(condition: Callable[[Example], bool]) -> Correction:
    return lambda example: example if condition(example) else None


def _rewrite(pattern: re.Pattern[str], replacement: str) -> Correction:
    return lambda example: replace(example, context=pattern.sub(replacement, example.context))


def _true_sentiment(example: Example) -> Example:
    # Rows with a group were written by `finlora data build`, and are right already.
    return (
        example if example.group else replace(example, target=_TFNS_TRUTH.get(example.target, example.target))
    )


def _is_sound_math(example: Example) -> bool:
    match = _FORMULA_NAME.match(example.context)
    name = match[1] if match else ""
    zero = parse_number(example.target) == 0
    return name != "Net Present Value (NPV)" and (not zero or name == "Balance of Trade")


def _two_decimals(example: Example) -> Example:
    number = parse_number(example.target)
    if number is None or number != round(number, 2):
        return example
    return replace(example, target=f"{number:.2f}")


def _without_empty_option(example: Example) -> Example:
    def options(match: re.Match[str]) -> str:
        return ",".join(tag for tag in match[0].split(",") if tag.strip())

    return replace(example, context=_TAG_OPTIONS.sub(options, example.context))


def _right_number_of_questions(example: Example) -> Example:
    asked = example.target.count(",") + 1
    text = f"Answer the following {asked} independent questions by providing only  {asked} US GAAP"
    return replace(example, context=_NUMBER_OF_QUESTIONS.sub(text, example.context))


_OLD_FILES: tuple[tuple[str, Correction], ...] = (
    ("stray quotation mark", _rewrite(re.compile(r'^"(?=You are a knowledgeable XBRL assistant)'), "")),
    ("residue xmlns:us- in facts", _rewrite(re.compile(r"(?<=\w) ?xmlns:us- ?(?=/?>)"), "")),
)

CORRECTIONS: dict[str, tuple[tuple[str, Correction], ...]] = {
    "tfns": (("neutral and positive swapped", _true_sentiment),),
    "headline": (
        ("talk about price? contradicts the headlines", _keep_if(lambda e: _ABOUT_PRICE not in e.context)),
    ),
    "xbrl_term": (("empty term or definition", _keep_if(is_definition)),),
    "financial_math": (
        ("wrong net present values and zeros", _keep_if(_is_sound_math)),
        ("blanks before the question", _rewrite(_BLANKS_BEFORE_QUESTION, "")),
        ("one decimal instead of two", _two_decimals),
    ),
    "finer": (
        ("empty tag among the options", _without_empty_option),
        ("wrong number of questions", _right_number_of_questions),
    ),
    "xbrl_tags": (
        *_OLD_FILES,
        ("number as the tag", _keep_if(lambda e: parse_number(e.target) is None)),
        ("tag of a company's own", _keep_if(lambda e: e.target.partition(":")[0] in ("us-gaap", e.target))),
    ),
    "xbrl_value": _OLD_FILES,
    "xbrl_formula": (("question gives away * 100", _rewrite(_RESIDUE, " ")),),
    "xbrl_formula_calc": _OLD_FILES,
}
