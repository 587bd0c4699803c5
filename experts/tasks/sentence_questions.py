"""Tagging questions from the sentences of an inline XBRL document, as FiNER and FNXL ask them.

FiNER (Loukas et al. 2022, arXiv:2203.06482) asks about every tagged numeral of a sentence, FNXL in FinLoRA's
form (Sharma et al. 2023, arXiv:2306.03723) about the first numeral of each tag.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator

from ..errors import FinLoraError
from ..filings.inline_sentences import TaggedNumeral, TaggedSentence
from .built import Built
from .filing_sheets import PREFIX
from .sampling import mask_numbers
from .task import Example
from .xbrl_questions import sentence_tag_question

SENTENCE_TASKS = ("finer", "fnxl")


def sentence_questions(
    task: str, sentences: Iterable[TaggedSentence], tags: Collection[str] | None = None
) -> Built:
    """One question a numeral (``finer``), or a tag of a sentence (``fnxl``).

    Dropped and counted are tags that the company added to the taxonomy, numerals that stand in the sentence
    more than once under different tags or untagged, and repeated questions; a question that repeats with
    another answer is dropped altogether. The group is the sentence with its numbers masked.

    Args:
        task: One of ``SENTENCE_TASKS``.
        sentences: Of one or more documents.
        tags: Tags (without prefix) that may be asked, such as FiNER's 139; None for all of us-gaap.

    Raises:
        FinLoraError: Unknown task.
    """
    if task not in SENTENCE_TASKS:
        raise FinLoraError(f"Task {task!r} asks about no sentences; allowed are {', '.join(SENTENCE_TASKS)}.")
    dropped: Counter[str] = Counter()
    answers: dict[str, list[Example]] = defaultdict(list)
    for sentence in sentences:
        for numeral in _asked(task, sentence, tags, dropped):
            group = mask_numbers(sentence.text)
            example = sentence_tag_question(sentence.text, numeral.text, numeral.tag, group=group)
            answers[example.context].append(example)
    examples = []
    for repeated in answers.values():
        if len({example.target for example in repeated}) > 1:
            dropped["same question with another answer"] += len(repeated)
        else:
            examples.append(repeated[0])
            dropped["same question again"] += len(repeated) - 1
    return Built(examples, +dropped)


def _asked(
    task: str, sentence: TaggedSentence, tags: Collection[str] | None, dropped: Counter[str]
) -> Iterator[TaggedNumeral]:
    seen: set[str] = set()
    for numeral in sentence.numerals:
        if not numeral.tag.startswith(PREFIX):
            dropped["tag outside us-gaap"] += 1
        elif tags is not None and numeral.tag.removeprefix(PREFIX) not in tags:
            dropped["tag that is not asked"] += 1
        elif sentence.text[numeral.start : numeral.end] != numeral.text:
            dropped["numeral not where it should be"] += 1
        elif not _is_clear(numeral, sentence):
            dropped["numeral more than once in the sentence"] += 1
        elif task == "fnxl" and numeral.tag in seen:
            dropped["tag asked already in the sentence"] += 1
        else:
            seen.add(numeral.tag)
            yield numeral


def _is_clear(numeral: TaggedNumeral, sentence: TaggedSentence) -> bool:
    """Whether every place where the numeral stands in the sentence has its tag."""
    standing = rf"(?<![\w.,]){re.escape(numeral.text)}(?![\w]|[.,]\d)"
    places = {match.start() for match in re.finditer(standing, sentence.text)} | {numeral.start}
    alike = (other for other in sentence.numerals if other.tag == numeral.tag)
    tagged = {other.start for other in alike if other.text == numeral.text}
    return places <= tagged
