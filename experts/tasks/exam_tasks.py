"""Tasks from examinations, whose questions were never released: they come from a file of the user's own."""

from .card import Card, Fault
from .scorers import choice_score
from .task import Task

_CARD = Card(
    faults=(
        Fault(
            "FinLoRA's targets are letter and text, so that a bare letter counts as wrong there",
            "the letter decides; a wrong text beside it is wrong",
        ),
    ),
    notes=("FinLoRA's questions were never released, so nothing here compares with its numbers.",),
)


def _exam(name: str, title: str) -> Task:
    return Task(
        name=name,
        version=1,
        category="certificates",
        title=title,
        prompt=(
            "Choose the right answer. Answer with the exact letter and choice text and no explanations.⏎"
            "Context: <case, if any>⏎Question: <question>⏎A. <choice>⏎B. <choice>⏎C. <choice>⏎Answer:"
        ),
        answer_form="letter and text of the choice, such as B. Net income",
        scorer=choice_score,
        max_new_tokens=64,
        source="a table of the user's own: question, choices A to E, answer, optionally context",
        licence="the examination's; CFA and CPA questions are not free to copy",
        card=_CARD,
    )


CFA_LEVEL_1 = _exam("cfa_level1", "CFA level 1")
CFA_LEVEL_2 = _exam("cfa_level2", "CFA level 2")
CFA_LEVEL_3 = _exam("cfa_level3", "CFA level 3")
CPA_REG = _exam("cpa_reg", "CPA regulation")
