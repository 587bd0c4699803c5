"""Tasks on the facts of XBRL filings: tags, values, formulas."""

from .card import Card, Fault, PublishedFile
from .scorers import formula_score, number_score, tag_score
from .task import Task

_SOURCE = "XBRL filings (SEC EDGAR), or invented companies in the embedded suite"
_LICENCE = "SEC filings are public record; invented companies: Apache-2.0; FinLoRA's questions: MIT"
_PROMPT = "<instruction>⏎XML File: <facts, one a line>⏎Question: <question>⏎Answer:"
_REPEATED_FACTS = Fault(
    "FinLoRA's prompts repeat facts, offer near synonyms such as equity with and without noncontrolling "
    "interest, and drop what a company added to the taxonomy",
    "questions built from filings show each fact once and leave out what competes with the answer",
)
_OLD_PROMPTS = Fault(
    'the files of March 2025 begin with a stray quotation mark, and keep "xmlns:us-" in many facts',
    "removed",
)
_RECURRING = (
    "train rows with the company and question of a test row are left out of finlora-fixed; the suite real "
    "shares no company"
)

XBRL_TAGS = Task(
    name="xbrl_tags",
    version=1,
    category="analysis",
    title="XBRL tag extraction",
    prompt=_PROMPT,
    answer_form="one tag, such as us-gaap:Goodwill; the prefix is optional, upper and lower case count",
    scorer=tag_score,
    metrics=("macro F1", "micro F1"),
    max_new_tokens=48,
    source=_SOURCE,
    licence=_LICENCE,
    card=Card(
        files=(
            PublishedFile("FinLoRA xbrl_extract_tags_test.jsonl", 2945),
            PublishedFile("FinLoRA xbrl_tags_test.csv", 2945, ".csv"),
            PublishedFile("FinLoRA xbrl_xbrl_tags_test.jsonl of 2025-03-10", 115),
            PublishedFile("FinLoRA xbrl_xbrl_tags_test.jsonl of 2025-03-13", 108),
        ),
        faults=(
            Fault("215 of 2,945 rows (43 questions) ask for a value and have a number as answer", "dropped"),
            Fault("10 rows have jpm: tags, which their prompts cannot show", "dropped"),
            Fault("2,945 rows are 589 questions in 5 wordings", "the question is the group"),
            _REPEATED_FACTS,
            _OLD_PROMPTS,
        ),
    ),
)
XBRL_VALUE = Task(
    name="xbrl_value",
    version=2,
    category="analysis",
    title="XBRL value extraction",
    prompt=_PROMPT,
    answer_form=(
        "the number as it stands in the filing, without tolerance; $, % and thousands separators are "
        "ignored, and brackets make it negative"
    ),
    scorer=number_score,
    max_new_tokens=24,
    source=_SOURCE,
    licence=_LICENCE,
    card=Card(
        files=(
            PublishedFile("FinLoRA xbrl_extract_value_test.jsonl", 2515),
            PublishedFile("FinLoRA value_test.csv", 2515, ".csv"),
            PublishedFile("FinLoRA xbrl_value_test.jsonl of 2025-03-10", 102),
            PublishedFile("FinLoRA xbrl_value_test.jsonl of 2025-03-13", 104),
        ),
        faults=(
            Fault(
                'pandas 2 reads the targets as whole numbers, pandas 3 as text that ends in ".0": one '
                "file, two "
                "scores",
                "compared as numbers here; finlora-compat reads them as pandas 2 does",
            ),
            Fault(
                "39 of 104 values stand more than once in their facts, so that a right value need not mean "
                "the "
                "right fact",
                "named only: the answer is the value",
            ),
            Fault("2,515 rows are 503 questions in 5 wordings", "the question is the group"),
            _REPEATED_FACTS,
            _OLD_PROMPTS,
        ),
    ),
)
XBRL_FORMULA = Task(
    name="xbrl_formula",
    version=3,
    category="analysis",
    title="XBRL formula construction",
    prompt=_PROMPT,
    answer_form=(
        "a formula of tags, such as (us-gaap:NetIncomeLoss / us-gaap:Revenues) * 100; any algebraically "
        "equal form of it with the same numbers counts, the prefix us-gaap: is optional"
    ),
    scorer=formula_score,
    max_new_tokens=96,
    source=_SOURCE,
    licence=_LICENCE,
    card=Card(
        files=(
            PublishedFile("FinLoRA xbrl_extract_formula_test.jsonl", 835),
            PublishedFile("FinLoRA formula_formatted_with_tags_test.csv", 835, ".csv"),
            PublishedFile("FinLoRA formula_formatted_with_tags_train.csv", 3360, ".csv"),
        ),
        faults=(
            Fault(
                "450 of 835 test and 1,810 of 3,360 train questions end in “ * 100')”, part of the answer",
                "removed",
            ),
            Fault(
                "all 835 test questions are asked in train of the same company for another year, with the "
                "same "
                "answer in some year; only 18 answers differ",
                _RECURRING,
            ),
            Fault("835 rows are 167 questions in 5 wordings", "the question is the group"),
            _REPEATED_FACTS,
        ),
    ),
)
XBRL_FORMULA_CALC = Task(
    name="xbrl_formula_calc",
    version=3,
    category="analysis",
    title="XBRL formula calculation",
    prompt=_PROMPT,
    answer_form=(
        "a formula with values in it, such as (1200 / 8000) * 100; any algebraically equal form of it with "
        "the same numbers counts, its result does not"
    ),
    scorer=formula_score,
    max_new_tokens=64,
    source=_SOURCE,
    licence=_LICENCE,
    card=Card(
        files=(
            PublishedFile("FinLoRA xbrl_extract_formula_calculations_test.jsonl", 835),
            PublishedFile("FinLoRA formula_calculation_test.csv", 835, ".csv"),
            PublishedFile("FinLoRA formula_calculation_train.csv", 3360, ".csv"),
            PublishedFile("FinLoRA xbrl_formula_test.jsonl of 2025-03-13", 104),
        ),
        faults=(
            Fault(
                "questions ask for “the value”, then to “answer with a formula substituted with values”",
                "named only: the formula is the answer, and a bare result is wrong",
            ),
            Fault("all 835 test questions recur in train for another year, with other answers", _RECURRING),
            Fault("835 rows are 167 questions in 5 wordings", "the question is the group"),
            _REPEATED_FACTS,
            _OLD_PROMPTS,
        ),
    ),
)
