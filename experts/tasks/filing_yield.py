"""How many questions filings give, and why candidates were dropped: counts only, no text of a filing."""

from collections import Counter
from collections.abc import Mapping

from ..filings.filing import Filing
from ..filings.inline_sentences import TaggedSentence
from ..filings.ratios import ALL_RATIOS
from .built import Built
from .filing_asker import FILING_TASKS
from .filing_context import QuestionSettings
from .filing_questions import build_questions
from .sentence_questions import SENTENCE_TASKS, sentence_questions
from .term_questions import term_questions

SETTINGS = QuestionSettings(style="full", ratios=ALL_RATIOS)
"""How the table asks: in full style about all ratios."""


def built_of_filing(filing: Filing, settings: QuestionSettings = SETTINGS) -> dict[str, Built]:
    """What a filing gives, by task."""
    built = {task: build_questions(task, filing, settings=settings) for task in FILING_TASKS}
    return built | {"xbrl_term": term_questions(filing)}


def built_of_document(sentences: list[TaggedSentence]) -> dict[str, Built]:
    """What the sentences of an inline XBRL document give, by task."""
    return {task: sentence_questions(task, sentences) for task in SENTENCE_TASKS}


def yield_report(filings: Mapping[str, dict[str, Built]], documents: Mapping[str, dict[str, Built]]) -> str:
    """The yield as Markdown: questions by task and source, and dropped candidates by task and reason.

    Args:
        filings: Results of `built_of_filing` by the name under which they are listed.
        documents: Results of `built_of_document` by name.
    """
    return "\n".join(
        [
            "# Questions that filings give",
            "",
            "Questions by task and filing, in the style `full`, over all ratios and without a token budget:",
            "",
            *_table(filings),
            "",
            "Questions by task and inline XBRL document:",
            "",
            *_table(documents),
            "",
            "Candidates that were dropped, and why:",
            "",
            *_reasons([*filings.values(), *documents.values()]),
            "",
        ]
    )


def _table(sources: Mapping[str, dict[str, Built]]) -> list[str]:
    tasks = list(dict.fromkeys(task for built in sources.values() for task in built))
    rows = [[name, *(len(built[task].examples) for task in tasks)] for name, built in sources.items()]
    totals = [sum(column) for column in zip(*(row[1:] for row in rows), strict=True)]
    return _markdown(["", *tasks], [*rows, ["total", *totals]])


def _reasons(sources: list[dict[str, Built]]) -> list[str]:
    rows = []
    for task in dict.fromkeys(task for built in sources for task in built):
        of_task = [built[task] for built in sources if task in built]
        dropped = sum((built.dropped for built in of_task), Counter())
        examples = sum(len(built.examples) for built in of_task)
        rows.append([task, "built", examples])
        rows += [["", f"dropped: {reason}", count] for reason, count in dropped.most_common()]
    return _markdown(["task", "candidates", "count"], rows)


def _markdown(head: list[str], rows: list[list]) -> list[str]:
    cells = [[f"{cell:,}" if isinstance(cell, int) else cell for cell in row] for row in rows]
    rule = ["--:" if isinstance(cell, int) else ":--" for cell in rows[0]]
    return [f"| {' | '.join(row)} |" for row in (head, rule, *cells)]
