"""Tasks on reports: tags of numerals, XBRL terms, formulas in words, questions about pages of a report."""

from .card import Card, Fault, PublishedFile
from .scorers import rounded_number_score, tags_score, text_score
from .task import Task

_TAG_METRICS = ("macro F1 of tags", "micro F1 of tags", "F1 of tags in any order")
_TAG_LIST = (
    "one tag, or several separated by commas, one a question; the score is the share of right tags in their "
    "places, of as many as are asked or given; the prefix us-gaap: is optional, upper and lower case count"
)
_TEXT_METRICS = ("ROUGE-L",)
_ONE_NUMERAL = '"<numeral>" in sentence: "<sentence>"?⏎Output US GAAP tag:'
_OTHER_FORM = "FinLoRA's form lists the tags and asks four such questions at once."

FINER = Task(
    name="finer",
    version=1,
    category="reporting",
    title="Numeral tagging (FiNER)",
    prompt=f"What is the best us gaap tag for entity {_ONE_NUMERAL}",
    answer_form=_TAG_LIST,
    scorer=tags_score,
    finlora_metric="lists",
    metrics=_TAG_METRICS,
    max_new_tokens=128,
    source=("FiNER-139 (Loukas et al. 2022, arXiv 2203.06482), or invented companies in the embedded suite"),
    licence="CC BY-SA 4.0; invented companies: Apache-2.0",
    card=Card(
        files=(PublishedFile("FinLoRA finer_test_batched.jsonl of 2025-03-17", 501),),
        faults=(
            Fault("the 140 tags offered include an empty one", "removed"),
            Fault("the last prompt has 2 questions but says 4", "it says 2"),
            Fault("the order of the tags offered is that of a Python set", "kept, the same in all rows"),
            Fault(
                "FinLoRA's scorer gives perfect answers 85 to 92 %, because Goodwill is found in "
                "GoodwillImpairmentLoss",
                "scored by exact match; finlora-compat gives the interval",
            ),
        ),
        notes=(
            _OTHER_FORM,
            "The suite real asks one question at a time and divides the published test file by sentence, "
            "because no training file is at hand.",
        ),
    ),
)
FNXL = Task(
    name="fnxl",
    version=1,
    category="reporting",
    title="Numeral tagging (FNXL)",
    prompt=f"What is the best us gaap tag for entity {_ONE_NUMERAL}",
    answer_form=_TAG_LIST,
    scorer=tags_score,
    finlora_metric="lists",
    metrics=_TAG_METRICS,
    max_new_tokens=128,
    source="FNXL (Sharma et al. 2023, arXiv 2306.03723), github.com/soummyaah/FNXL",
    licence="none stated by the repository; FinLoRA calls it public",
    card=Card(
        files=(
            PublishedFile("FinLoRA fnxl_test_batched.jsonl", 247),
            PublishedFile("FinLoRA fnxl_test_batched.jsonl of 2025-02-27", 33),
            PublishedFile("FNXL test_sample.csv", 988, ".csv"),
            PublishedFile("FNXL dev_sample.csv", 985, ".csv"),
            PublishedFile("FNXL train_sample.csv", 1000, ".csv"),
            PublishedFile(
                "FNXL labelCount.csv, tags and their counts",
                2799,
                ".csv",
                "dcbe6ef7061ccf4fff1cd1d4a0aa291abafbbfcf8369b3ee6472adf94d394062",
            ),
        ),
        faults=(
            Fault(
                "19 sentences are in train and test, 94 in dev and test (112 with numbers masked)",
                "left out of training in the suites real and finlora-fixed",
            ),
            Fault("345 to 348 companies are on both sides", "named only: sentences are kept apart"),
            Fault(
                "378 of 587 test tags do not occur in train_sample",
                "named only: seen_target_share bounds what can be learned",
            ),
            Fault(
                "FinLoRA asks for the first value of a tag only, even where it also has another tag",
                "values with two tags in a sentence are left out",
            ),
            Fault("the ticker in fileName is often another company's", "the column company is used"),
            Fault("docEndDate mixes four spellings and year has two digits", "not used"),
        ),
        notes=(_OTHER_FORM,),
    ),
)
XBRL_TERM = Task(
    name="xbrl_term",
    version=2,
    category="reporting",
    title="XBRL term explanation",
    prompt="Explain this XBRL term briefly in one sentence: <term>. Answer:",
    answer_form="a sentence, scored by the F1 of the words it shares with the right one",
    scorer=text_score,
    finlora_metric="BERTScore",
    metrics=_TEXT_METRICS,
    max_new_tokens=128,
    source="XBRL-Agent terminology in FinLoRA's split, or invented companies in the embedded suite",
    licence="MIT",
    card=Card(
        files=(
            PublishedFile("FinLoRA xbrl_term_test.jsonl", 651),
            PublishedFile("FinLoRA xbrl_term_train.jsonl", 5856),
            PublishedFile("XBRL-Agent XBRL Terminology.xlsx", 6507, ".xlsx"),
        ),
        faults=(
            Fault("6 train rows have the answer “nan” and 7 ask for the term “nan”: empty cells", "dropped"),
            Fault(
                "6 train terms are repeated, one with two definitions", "where they differ both are dropped"
            ),
            Fault(
                "2 test terms and 3 test definitions are also in train",
                "left out of the test questions of the suites real and finlora-fixed",
            ),
            Fault(
                "93 of 651 test answers are longer than the 50 tokens FinLoRA generates", "128 tokens here"
            ),
        ),
    ),
)
FINANCIAL_MATH = Task(
    name="financial_math",
    version=3,
    category="analysis",
    title="Financial math",
    prompt=(
        "Use formula <name> to answer the question. Answer with a numerical answer with 2 decimal places and "
        "with no explanations or other text. Formula: <formula>, Explanation: <symbols>. "
        "Question: <question>. Answer:"
    ),
    answer_form=(
        "a number with two decimals, right within 0.005, or within a millionth where that is more; $, % and "
        "thousands separators are ignored"
    ),
    scorer=rounded_number_score,
    max_new_tokens=16,
    source="XBRL-Agent formulas in FinLoRA's split",
    licence="MIT",
    card=Card(
        files=(
            PublishedFile("FinLoRA formula_test.jsonl", 200),
            PublishedFile("FinLoRA formula_train.jsonl", 800),
            PublishedFile(
                "XBRL-Agent formulas_with_explanations_with_questions_with_gt.xlsx, questions", 1000, ".xlsx"
            ),
        ),
        faults=(
            Fault(
                "net present values count time from 0 and leave out the first outlay: 6,000 for 4 years at "
                "8 % "
                "is 19,872.76, not 21,462.58",
                "the questions of this formula are dropped",
            ),
            Fault("8 answers are 0, 7 of them wrong (4 of unemployment)", "dropped, where 0 is not right"),
            Fault(
                "percentages are asked for as 40.0 or 0.4 without saying which",
                "named only: either may be the published answer",
            ),
            Fault("564 of 1,000 answers have one decimal, not the two asked for", "written with two"),
            Fault("350 train and all 200 test questions have two blanks before them", "one blank"),
        ),
    ),
)
FINANCEBENCH = Task(
    name="financebench",
    version=2,
    category="analysis",
    title="FinanceBench",
    prompt=(
        "Answer the following question very briefly using scanned text from pages. No explanation needed. "
        "Question: <question>⏎Document Pages Context:⏎<pages>⏎⏎Answer:"
    ),
    answer_form="a few words or a number, scored by the F1 of the words shared with the right ones",
    scorer=text_score,
    finlora_metric="BERTScore",
    metrics=_TEXT_METRICS,
    max_new_tokens=96,
    source="FinanceBench (Islam et al. 2023, arXiv 2311.11944) in FinLoRA's split",
    licence="CC BY-NC 4.0",
    card=Card(
        files=(
            PublishedFile("FinLoRA financebench_test.jsonl", 43),
            PublishedFile("FinLoRA financebench_train.jsonl", 86),
            PublishedFile("XBRL-Agent financebench.xlsx", 149, ".xlsx"),
        ),
        faults=(
            Fault(
                "3 of 43 test rows show pages of train rows, and 22 are about documents of train rows",
                "test rows about documents of train rows are left out of finlora-fixed; a document is a "
                "group, "
                "and on one side in the suite real",
            ),
            Fault("20 of 149 rows of the spreadsheet have no scanned pages", "it is asked with its evidence"),
        ),
        notes=(
            "43 test rows are few, and half of them share documents with train: intervals are wide.",
            "In the suite real most questions are left out, because their evidence is too long.",
        ),
    ),
)
