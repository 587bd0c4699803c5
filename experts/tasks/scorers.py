"""How an answer is compared with the right one: functions (prediction, target) -> 0.0 .. 1.0.

Each scorer gives a target compared with itself 1.0 and looks at the whole answer. FinLoRA's takes the first
known label found anywhere in the answer, so that a right answer may score 0 (AssetsCurrent contains Assets,
3.01 contains 3.0) and a wrong one 1. `finlora_compat` computes that score too, for comparison with published
numbers.
"""

import re
import string
from collections import Counter
from decimal import Decimal, InvalidOperation

from .formula import canonical_formula
from .formula_equivalence import equivalent_formulas

_TERMINAL_PUNCTUATION = ".,;:!?"
_NUMBER = re.compile(r"[+-]?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d*)?(?:[eE][+-]?\d{1,3})?")
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_WITHOUT_PUNCTUATION = str.maketrans("", "", string.punctuation)
_CHOICE = re.compile(r"\(?(?P<letter>[A-Za-z])(?:\)|\.|:|$)[.:]?\s*(?P<text>.*)", re.DOTALL)
_TWO_DECIMALS = Decimal("0.005")
_RELATIVE_TOLERANCE = Decimal("1e-6")


def label_score(prediction: str, target: str) -> float:
    """Exact match of the whole answer, blind to case, blanks and terminal punctuation."""
    return float(normalized_label(prediction) == normalized_label(target))


def tag_score(prediction: str, target: str) -> float:
    """Exact match of one tag: case counts, the ``us-gaap:`` prefix does not."""
    return float(_tag(prediction) == _tag(target))


def tags_score(prediction: str, target: str) -> float:
    """Share of right tags in a comma-separated list, by position; missing and surplus tags are wrong."""
    predicted, wanted = prediction.split(","), target.split(",")
    matches = sum(tag_score(one, other) for one, other in zip(predicted, wanted, strict=False))
    return matches / max(len(predicted), len(wanted))


def tag_set_score(prediction: str, target: str) -> float:
    """F1 of two comma-separated lists of tags whose order does not count; a repeated tag counts each time."""
    predicted, wanted = (Counter(map(_tag, text.split(","))) for text in (prediction, target))
    return 2.0 * (predicted & wanted).total() / (predicted.total() + wanted.total())


def number_score(prediction: str, target: str) -> float:
    """Numeric equality without tolerance: "$1,200.0" equals "1200", "3.0" does not equal "3.01".

    Dollar sign, percent sign and thousands separators are ignored; brackets make a number without a sign
    negative. A target that is no number is compared as a label.
    """
    wanted = parse_number(target)
    if wanted is None:
        return label_score(prediction, target)
    return float(parse_number(prediction) == wanted)


def rounded_number_score(prediction: str, target: str) -> float:
    """Numeric equality for answers given to two decimals.

    Right within 0.005, or within a millionth of the target where that is more (rounded intermediate results).
    """
    predicted, wanted = parse_number(prediction), parse_number(target)
    if wanted is None:
        return label_score(prediction, target)
    if predicted is None:
        return 0.0
    return float(abs(predicted - wanted) <= max(_TWO_DECIMALS, abs(wanted) * _RELATIVE_TOLERANCE))


def formula_score(prediction: str, target: str) -> float:
    """Algebraic equality of two formulas over tags or numbers: ``a / b * 100`` equals ``100 * a / b``.

    The ``us-gaap:`` prefix and thousands separators do not count. Values are not calculated with: "6 / 3"
    does not equal "2", nor "0 / 9 * 100" "0". A target that is no formula is compared as a label.
    """
    if canonical_formula(target) is None:
        return label_score(prediction, target)
    return float(equivalent_formulas(prediction, target))


def choice_score(prediction: str, target: str) -> float:
    """Match of a multiple-choice answer by its letter: "B", "(b)" and "B. Net income" equal "B. Net income".

    The choice's text alone counts too. A letter with another choice's text is wrong.
    """
    (letter, text), (wanted_letter, wanted_text) = _choice(prediction), _choice(target)
    if not wanted_letter:
        return label_score(prediction, target)
    if not letter:
        return float(bool(text) and text == wanted_text)
    return float(letter == wanted_letter and (not text or not wanted_text or text == wanted_text))


def text_score(prediction: str, target: str) -> float:
    """Token F1 of free text as in SQuAD (Rajpurkar et al. 2016, arXiv 1606.05250).

    Lower case, without articles and without ASCII punctuation; as in SQuAD's own script a dash, a typographic
    quotation mark or a euro sign stays. It counts shared words, not shared meaning, and is not comparable
    with the BERTScore that FinLoRA reports.
    """
    predicted, wanted = _words(prediction), _words(target)
    if not predicted or not wanted:
        return float(predicted == wanted)
    shared = sum((Counter(predicted) & Counter(wanted)).values())
    return 2.0 * shared / (len(predicted) + len(wanted))


def parse_number(text: str) -> Decimal | None:
    """Reads one number as written in an answer or a filing; None when the whole text is not a number.

    Brackets make a number without a sign negative, as in statements; around one with a sign they say nothing
    more: "(5)" and "(-5)" are -5.
    """
    bare = text.strip().replace("\N{MINUS SIGN}", "-")
    in_brackets = bare.startswith("(") and bare.endswith(")")
    bare = bare[1:-1] if in_brackets else bare
    bare = bare.replace("$", "").replace("%", "").replace(" ", "").rstrip(".")
    if not bare or not _NUMBER.fullmatch(bare):
        return None
    try:
        number = Decimal(bare.replace(",", ""))
    except InvalidOperation:
        return None
    return -number if in_brackets and bare[0] not in "+-" else number


def normalized_label(text: str) -> str:
    """Label in lower case with single blanks and without punctuation at its end."""
    return " ".join(text.split()).rstrip(_TERMINAL_PUNCTUATION + " ").casefold()


def _choice(text: str) -> tuple[str, str]:
    """Letter (empty if there is none) and text of a choice, both normalized."""
    match = _CHOICE.fullmatch(text.strip())
    letter, rest = (match["letter"], match["text"] or "") if match else ("", text)
    return letter.casefold(), normalized_label(rest)


def _tag(text: str) -> str:
    return text.strip().removeprefix("us-gaap:")


def _words(text: str) -> list[str]:
    without_punctuation = text.lower().translate(_WITHOUT_PUNCTUATION)
    return _ARTICLES.sub(" ", without_punctuation).split()
