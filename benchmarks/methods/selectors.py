"""Rules that choose one expert for a whole question, and answer as that expert does."""

from __future__ import annotations

from collections.abc import Sequence

from ..layout import expert_part
from .method import Method

TFIDF_AUTHORS = "tfidf_authors"
SELECTORS = {
    "random": ("Random expert", "An expert drawn anew for each question.", "#c4a484", True),
    "retrieval": (
        "Retrieval, top 1",
        "The expert of the training question nearest to this one, by the cosine of the base's mean hidden "
        "states.",
        "#2563eb",
        True,
    ),
    "classifier": (
        "Classifier, top 1",
        "The expert that a logistic regression on the base's mean hidden states names.",
        "#1d4ed8",
        False,
    ),
    "tfidf_retrieval": ("Retrieval on words", "As retrieval, on TF-IDF weights of words.", "#60a5fa", True),
    "tfidf_classifier": (
        "Classifier on words",
        "As the classifier, on TF-IDF weights of words.",
        "#3b82f6",
        False,
    ),
    TFIDF_AUTHORS: (
        "Classifier on words, ten authors",
        "As the classifier on words, fitted on the wordings that mode trunk, wordings of ten authors, "
        "learned from.",
        "#93c5fd",
        False,
    ),
}
"""Title, explanation, colour, and whether it draws at random."""
ON_WORDINGS = {TFIDF_AUTHORS: "tfidf_classifier"}
"""Those that are another rule, fitted on instructions in several wordings, and which one."""


def selector(name: str, tasks: tuple[str, ...], seeds: Sequence[int]) -> Method:
    """A rule, whose answers are looked up in those of the experts."""
    title, explanation, colour, draws = SELECTORS[name]
    return Method(
        name=name,
        title=title,
        explanation=explanation,
        colour=colour,
        family="selector",
        rule=ON_WORDINGS.get(name, name),
        learns_wordings=name in ON_WORDINGS,
        parts=tuple(map(expert_part, tasks)),
        seeds=tuple(seeds) if draws else (None,),
    )
