"""Asks what the terms of a filing mean, from its label and documentation linkbases.

Filings define what they add to the taxonomy; the documentation linkbase of us-gaap itself is read the same
way where a folder holds it.
"""

import re
from collections import Counter, defaultdict

from ..filings.filing import Filing
from .built import Built
from .xbrl_questions import term_question

MIN_WORDS = 5
"""Of a definition; shorter ones are names."""

_WORD = re.compile(r"[a-z]+")
_KIND = re.compile(r"\s*\[(?:\w+ ?)+\]$")
"""Such as "[Member]", which taxonomies put behind a label."""
_SMALL_WORDS = frozenset(
    re.findall(r"\w+", "a amount an and as at by for from in is it of on or that the this to with")
)


def term_questions(filing: Filing) -> Built:
    """One question a label that has a definition.

    Dropped and counted are definitions of fewer than ``MIN_WORDS`` words, those that say no more than the
    label, and labels with different definitions.
    """
    dropped: Counter[str] = Counter()
    definitions: dict[str, list[str]] = defaultdict(list)
    for tag, documentation in filing.documentation.items():
        label, definition = (_KIND.sub("", text) for text in (filing.labels.get(tag, ""), documentation))
        if not label:
            dropped["no label in the linkbase"] += 1
        elif len(definition.split()) < MIN_WORDS:
            dropped[f"definition of fewer than {MIN_WORDS} words"] += 1
        elif not _words(definition) - _words(label):
            dropped["definition says no more than the label"] += 1
        else:
            definitions[label].append(definition)
    examples = []
    for label, known in definitions.items():
        if len(set(known)) > 1:
            dropped["label with different definitions"] += len(known)
        else:
            dropped["same label and definition again"] += len(known) - 1
            examples.append(term_question(label, known[0]))
    return Built(examples, +dropped)


def _words(text: str) -> set[str]:
    # Singular and plural say the same.
    return {word.removesuffix("s") for word in _WORD.findall(text.casefold())} - _SMALL_WORDS
