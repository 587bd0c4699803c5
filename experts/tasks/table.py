"""The table of tasks. Adding a task is adding an entry."""

import difflib

from ..errors import FinLoraError
from .scorers import (
    formula_score,
    label_score,
    number_score,
    rounded_number_score,
    tag_score,
    tags_score,
    text_score,
)
from .task import Task

_OR_INVENTED = "or invented companies in the embedded suite"
_FILINGS = f"XBRL filings (SEC EDGAR), {_OR_INVENTED}"
_FILINGS_LICENCE = "SEC filings are public record; invented companies: Apache-2.0"

_TASKS = (
    Task(
        name="xbrl_tags",
        version=1,
        title="XBRL tag extraction",
        scorer=tag_score,
        max_new_tokens=48,
        source=_FILINGS,
        licence=_FILINGS_LICENCE,
    ),
    Task(
        name="xbrl_value",
        version=1,
        title="XBRL value extraction",
        scorer=number_score,
        max_new_tokens=24,
        source=_FILINGS,
        licence=_FILINGS_LICENCE,
    ),
    Task(
        name="xbrl_formula",
        version=1,
        title="XBRL formula construction",
        scorer=formula_score,
        max_new_tokens=96,
        source=_FILINGS,
        licence=_FILINGS_LICENCE,
    ),
    Task(
        name="xbrl_formula_calc",
        version=1,
        title="XBRL formula calculation",
        scorer=formula_score,
        max_new_tokens=64,
        source=_FILINGS,
        licence=_FILINGS_LICENCE,
    ),
    Task(
        name="finer",
        version=1,
        title="Numeral tagging (FiNER)",
        scorer=tags_score,
        max_new_tokens=128,
        source=f"FiNER-139 (Loukas et al. 2022, arXiv 2203.06482), {_OR_INVENTED}",
        licence="CC BY-SA 4.0; invented companies: Apache-2.0",
    ),
    Task(
        name="fnxl",
        version=1,
        title="Numeral tagging (FNXL)",
        scorer=tags_score,
        max_new_tokens=128,
        source="FNXL (Sharma et al. 2023, arXiv 2306.03723), github.com/soummyaah/FNXL",
        licence="none stated by the repository; FinLoRA calls it public",
    ),
    Task(
        name="xbrl_term",
        version=1,
        title="XBRL term explanation",
        scorer=text_score,
        max_new_tokens=128,
        source=f"XBRL-Agent terminology in FinLoRA's split, {_OR_INVENTED}",
        licence="MIT",
    ),
    Task(
        name="financial_math",
        version=1,
        title="Financial math",
        scorer=rounded_number_score,
        max_new_tokens=16,
        source="XBRL-Agent formulas in FinLoRA's split",
        licence="MIT",
    ),
    Task(
        name="financebench",
        version=1,
        title="FinanceBench",
        scorer=text_score,
        max_new_tokens=96,
        source="FinanceBench (Islam et al. 2023, arXiv 2311.11944) in FinLoRA's split",
        licence="CC BY-NC 4.0",
    ),
    Task(
        name="fpb",
        version=1,
        title="Financial PhraseBank sentiment",
        scorer=label_score,
        max_new_tokens=8,
        source="Financial PhraseBank, 50 % agreement (Malo et al. 2014, arXiv 1307.5336) in FinLoRA's split",
        licence="CC BY-SA 3.0",
    ),
    Task(
        name="fiqa",
        version=1,
        title="FiQA sentiment",
        scorer=label_score,
        max_new_tokens=8,
        source="FiQA 2018 task 1 as in PIXIU's flare-fiqasa",
        licence="MIT",
    ),
    Task(
        name="tfns",
        version=1,
        title="Twitter financial news sentiment",
        scorer=label_score,
        max_new_tokens=8,
        source="zeroshot/twitter-financial-news-sentiment, original labels (FinLoRA's file permutes them)",
        licence="MIT",
    ),
    Task(
        name="nwgi",
        version=1,
        title="NWGI sentiment, 7 classes",
        scorer=label_score,
        max_new_tokens=8,
        source="oliverwang15/news_with_gpt_instructions in FinLoRA's split",
        licence="MIT",
    ),
    Task(
        name="sentiment",
        version=1,
        title="Sentiment of invented news",
        scorer=label_score,
        max_new_tokens=8,
        source="invented companies in the embedded suite",
        licence="Apache-2.0",
    ),
    Task(
        name="headline",
        version=1,
        title="Headline yes/no",
        scorer=label_score,
        max_new_tokens=4,
        source=f"Gold headlines (Sinha and Khandait 2020, arXiv 2009.04202), {_OR_INVENTED}",
        licence="CC BY-SA 3.0; invented companies: Apache-2.0",
    ),
    Task(
        name="ner",
        version=1,
        title="Entity type",
        scorer=label_score,
        max_new_tokens=8,
        source="FinGPT/fingpt-ner-cls in FinLoRA's split",
        licence="CC BY-SA 3.0",
    ),
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
