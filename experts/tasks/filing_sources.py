"""Builds the examples of a task from one filing that a user has, and says what was left out."""

from dataclasses import replace
from pathlib import Path

from ..errors import FinLoraError
from ..filings.filing import read_filing
from ..filings.inline_sentences import tagged_sentences
from ..filings.ratios import ALL_RATIOS
from .built import Built
from .filing_context import QuestionSettings, Style
from .filing_questions import FILING_TASKS, build_questions
from .sentence_questions import SENTENCE_TASKS, sentence_questions
from .task import Example
from .term_questions import term_questions

TASKS_OF_FILINGS = (*FILING_TASKS, "xbrl_term", *SENTENCE_TASKS)
"""Tasks whose questions can be built from a filing."""
DOCUMENTS = (".htm", ".html", ".xhtml")
"""Endings of inline XBRL documents, whose sentences the numeral tasks need."""


def build_from_filing(task: str, place: Path, style: Style = "full") -> tuple[list[Example], list[str]]:
    """All questions of a task about a filing, and a sentence for each reason why one was left out.

    Args:
        task: One of `TASKS_OF_FILINGS`.
        place: Folder of a filing, its instance, or its inline document.
        style: How facts stand in the prompts of the four extraction tasks.

    Raises:
        FinLoraError: The filing cannot be read, or is not of the form that the task or the style needs.
    """
    built = _built(task, place, style)
    return built.examples, [f"left out, {reason}: {count:,}" for reason, count in built.dropped.most_common()]


def _built(task: str, place: Path, style: Style) -> Built:
    if task in SENTENCE_TASKS:
        if place.suffix not in DOCUMENTS:
            raise FinLoraError(
                f"{task} asks about sentences, which only inline XBRL has; give the filing's document "
                f"({', '.join(DOCUMENTS)}) instead of {place}."
            )
        return sentence_questions(task, tagged_sentences(place))
    if task == "xbrl_term":
        return term_questions(read_filing(place))
    settings = QuestionSettings(style=style, ratios=ALL_RATIOS)
    if style == "finlora":
        if place.suffix != ".xml":
            raise FinLoraError(
                f"The style finlora quotes the XBRL instance; give the .xml instance instead of {place}."
            )
        settings = replace(settings, instance=place)
    return build_questions(task, read_filing(place), settings=settings)
