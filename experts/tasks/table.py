"""The table of tasks. Adding a task is adding an entry."""

import difflib

from ..errors import FinLoraError
from .exam_tasks import CFA_LEVEL_1, CFA_LEVEL_2, CFA_LEVEL_3, CPA_REG
from .general_tasks import FIQA, FPB, HEADLINE, NER, NWGI, SENTIMENT, TFNS
from .reporting_tasks import FINANCEBENCH, FINANCIAL_MATH, FINER, FNXL, XBRL_TERM
from .task import Task
from .xbrl_tasks import XBRL_FORMULA, XBRL_FORMULA_CALC, XBRL_TAGS, XBRL_VALUE

_TASKS = (
    XBRL_TAGS,
    XBRL_VALUE,
    XBRL_FORMULA,
    XBRL_FORMULA_CALC,
    FINER,
    FNXL,
    XBRL_TERM,
    FINANCIAL_MATH,
    FINANCEBENCH,
    FPB,
    FIQA,
    TFNS,
    NWGI,
    SENTIMENT,
    HEADLINE,
    NER,
    CFA_LEVEL_1,
    CFA_LEVEL_2,
    CFA_LEVEL_3,
    CPA_REG,
)

TASKS: dict[str, Task] = {task.name: task for task in _TASKS}


def get_task(name: str) -> Task:
    """The task of that name.

    Raises:
        FinLoraError: There is none; the message suggests the nearest name.
    """
    if name in TASKS:
        return TASKS[name]
    nearest = difflib.get_close_matches(name.lower(), TASKS, n=1)
    hint = f"did you mean {nearest[0]!r}? " if nearest else ""
    raise FinLoraError(f"There is no task {name!r}; {hint}known tasks are {', '.join(TASKS)}.")
