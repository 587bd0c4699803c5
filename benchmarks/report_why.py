"""The report's reasons: what the router does token by token, how alike experts are, which answers differ."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from .layout import RunLayout
from .methods import XLORA
from .page import plot_html
from .report_data import Findings
from .why.errors import differences_html, read_differences
from .why.figures import (
    agreement_by_layer,
    entropy_by_layer,
    similarity_against_transfer,
    similarity_and_transfer,
)
from .why.geometry import study_geometry
from .why.stored import RouterLook, read_look
from .why.token_map import token_map

FEWEST_EXPERTS = 4
"""Fewer experts have too few pairs for a test of similarity against transfer."""
SHOWN_DIFFERENCES = 5


@dataclass(frozen=True)
class Reason:
    """One section.

    Attributes:
        heading: Its heading.
        text: What the reader looks at.
        parts: Pieces of HTML by their own headings; folded up if `folded`.
        folded: Whether each piece is shown only when asked for.
    """

    heading: str
    text: str
    parts: dict[str, str]
    folded: bool = False


def reasons(layout: RunLayout, findings: Findings) -> list[Reason]:
    """All sections for which the run has what they are made from."""
    look = read_look(layout.router_look)
    found = [] if look is None else list(_routing(look))
    tasks = findings.tasks
    if len(tasks) >= FEWEST_EXPERTS and all(layout.expert(task).is_dir() for task in tasks):
        found.append(_geometry(layout))
    if all(layout.examples(task, "test").exists() for task in tasks):
        found.append(_errors(layout, findings))
    return found


def _routing(look: RouterLook) -> Iterator[Reason]:
    yield Reason(
        "The router, token by token",
        "One short test question of each task with its right answer. A token has the colour of the expert "
        "with the largest mean scaling, the stronger the larger; point at it for its strongest experts in "
        "every block. Framed tokens are those from which the answer is written.",
        {
            task: plot_html(token_map(read, experts=look.experts, layers=look.layers), f"tokens-{task}")
            for task, read in look.questions.items()
        },
        folded=True,
    )
    yield Reason(
        "Layer by layer",
        "On the tokens from which answers are written: how often the right expert has the largest scaling, "
        "and how evenly the scalings are spread (entropy: 0 where one expert has all).",
        {
            "Right expert on top": plot_html(agreement_by_layer(look.routing), "agreement"),
            "Spread": plot_html(entropy_by_layer(look.routing), "entropy"),
        },
    )


def _geometry(layout: RunLayout) -> Reason:
    geometry = study_geometry(layout)
    parts = {}
    for measure in geometry.similarity.overall:
        parts[f"{measure}, beside transfer"] = plot_html(
            similarity_and_transfer(geometry, measure), f"similarity-{measure}"
        ) + plot_html(similarity_against_transfer(geometry, measure), f"against-{measure}")
    return Reason(
        "Do experts that are alike help each other?",
        "Left, how alike the updates of two experts are; right, how much of the way from the base to the "
        "right expert one expert goes on the other's task. The p-values are of a permutation test over the "
        "labels of the experts (Mantel), corrected after Holm for the number of measures.",
        parts,
        folded=True,
    )


def _errors(layout: RunLayout, findings: Findings) -> Reason:
    seed = findings.config["router_seeds"][0]
    parts = {}
    for task in findings.tasks:
        differences = read_differences(layout, task, (XLORA, "oracle"), (seed, None))
        if differences:
            parts[f"{task}: {len(differences)} questions"] = differences_html(
                differences, (XLORA, "oracle"), most=SHOWN_DIFFERENCES
            )
    return Reason(
        "Where X-LoRA and the right expert differ",
        f"Questions on which X-LoRA (router seed {seed}) and the expert of the task scored differently.",
        parts,
        folded=True,
    )
