"""The SEC's transformations of inline XBRL text (http://www.sec.gov/inlineXBRL/transformation/2015-08-31).

Numbers and durations in English words, ballot boxes, exchanges, filer categories, and states. Not known:
country names, EDGAR's codes of places, and quarters.
"""

import re
from collections.abc import Callable
from fractions import Fraction

_SMALL = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen"
)
_SMALL_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
_UNITS = {word: value for value, word in enumerate(_SMALL.split())} | dict.fromkeys(("no", "none", "nil"), 0)
_TENS = {word: 10 * value for value, word in enumerate(_SMALL_TENS.split(), 2)}
_LARGE = {"thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_GAP = r"[\s\-\u2010\u2011\u2013]"  # blanks, hyphens, dashes
_DAYS_A_MONTH = Fraction(487, 16)  # 30.4375
_EXCHANGES = (
    ("nyse american|nyse mkt", "NYSEAMER"),
    ("nyse arca", "NYSEArca"),
    ("nyse national", "NYSENAT"),
    ("nyse chicago|nyse texas|chicago stock exchange", "CHX"),
    ("nasdaq.*(bx|boston)|boston stock exchange", "BX"),
    ("nasdaq.*(phlx|philadelphia)|philadelphia stock exchange", "Phlx"),
    ("nasdaq", "NASDAQ"),
    ("new york stock exchange|nyse", "NYSE"),
    ("cboe.*bzx", "CboeBZX"),
    ("cboe.*byx", "CboeBYX"),
    ("cboe.*edga", "CboeEDGA"),
    ("cboe.*edgx", "CboeEDGX"),
    ("cboe|chicago board options exchange", "CBOE"),
    ("investors exchange|iex", "IEX"),
    ("long-?term stock exchange", "LTSE"),
    ("memx", "MEMX"),
    ("none", "NONE"),
)
_STATES = """
AL Alabama, AK Alaska, AZ Arizona, AR Arkansas, CA California, CO Colorado, CT Connecticut, DE Delaware,
DC District of Columbia, FL Florida, GA Georgia, HI Hawaii, ID Idaho, IL Illinois, IN Indiana, IA Iowa,
KS Kansas, KY Kentucky, LA Louisiana, ME Maine, MD Maryland, MA Massachusetts, MI Michigan, MN Minnesota,
MS Mississippi, MO Missouri, MT Montana, NE Nebraska, NV Nevada, NH New Hampshire, NJ New Jersey,
NM New Mexico, NY New York, NC North Carolina, ND North Dakota, OH Ohio, OK Oklahoma, OR Oregon,
PA Pennsylvania, RI Rhode Island, SC South Carolina, SD South Dakota, TN Tennessee, TX Texas, UT Utah,
VT Vermont, VA Virginia, WA Washington, WV West Virginia, WI Wisconsin, WY Wyoming, PR Puerto Rico,
VI Virgin Islands, GU Guam, AB Alberta, BC British Columbia, MB Manitoba, NB New Brunswick, NL Newfoundland,
NS Nova Scotia, ON Ontario, PE Prince Edward Island, QC Quebec, SK Saskatchewan, YT Yukon
"""
_STATE_CODES = {entry.split(maxsplit=1)[1].lower(): entry.split()[0] for entry in _STATES.split(",")}
_CATEGORIES = ("Large Accelerated Filer", "Accelerated Filer", "Non-accelerated Filer")


def number_in_words(text: str) -> int:
    """The whole number that English words or digits name: "twenty-five", "one hundred and two", "no".

    Raises:
        ValueError: A word is not part of a number.
    """
    total = group = 0
    words = [word for word in re.split(rf"{_GAP}+", text.lower().strip()) if word not in ("and", "a", "")]
    if not words:
        raise ValueError(f"{text!r} is not a number in words")
    for word in words:
        if word in _UNITS or word in _TENS:
            group += _UNITS.get(word, _TENS.get(word, 0))
        elif word == "hundred":
            group = max(group, 1) * 100
        elif word in _LARGE:
            total += max(group, 1) * _LARGE[word]
            group = 0
        elif word.isdecimal() and len(word) <= 9:
            group += int(word)
        else:
            raise ValueError(f"{text!r} is not a number in words")
    return total + group


def _duration_in_words(text: str) -> str:
    found = re.findall(rf"(.+?){_GAP}*\b(year|month|week|day)s?\b[\s,]*", text.lower())
    if not found:
        raise ValueError(f"{text!r} is not a duration in words")
    amounts = dict.fromkeys(("year", "month", "day"), 0)
    for words, unit in found:
        number = number_in_words(words)
        amounts["day" if unit == "week" else unit] += 7 * number if unit == "week" else number
    return _duration(*amounts.values())


def _duration(years: int, months: int = 0, days: int = 0) -> str:
    parts = ((years, "Y"), (months, "M"), (days, "D"))
    return "P" + ("".join(f"{amount}{unit}" for amount, unit in parts if amount) or "0D")


def _years(text: str) -> str:
    years = _amount(text)
    months = years % 1 * 12
    duration = _duration(int(years), int(months), int(months % 1 * _DAYS_A_MONTH))
    # The SEC writes parts of the first year as P0Y6M.
    return duration if years >= 1 else duration.replace("P", "P0Y").replace("P0Y0D", "P0Y")


def _months(text: str) -> str:
    months = _amount(text)
    return _duration(0, int(months), int(months % 1 * _DAYS_A_MONTH))


def _amount(text: str) -> Fraction:
    if not re.fullmatch(r"\d{1,9}(\.\d{1,9})?|\.\d{1,9}", text, re.ASCII):
        raise ValueError(f"{text!r} is not a number")
    return Fraction(text)


def _hours(text: str) -> str:
    hours = _amount(text)
    return f"PT{int(hours)}H" + (f"{int(hours % 1 * 60)}M" if hours % 1 else "")


def _ballot_box(text: str) -> str:
    if text in ("☐", "□", "¨", "o"):
        return "false"
    if text in ("☑", "☒", "þ", "x", "X", "ý"):
        return "true"
    raise ValueError(f"{text!r} is not a ballot box")


def _exchange(text: str) -> str:
    for pattern, code in _EXCHANGES:
        if re.search(pattern, text.lower()):
            return code
    raise ValueError(f"{text!r} is not a known exchange")


def _state(text: str) -> str:
    name = re.sub(r"^(the )?(state|commonwealth|province) of ", "", text.lower())
    if name not in _STATE_CODES:
        raise ValueError(f"{text!r} is not a known state")
    return _STATE_CODES[name]


def _filer_category(text: str) -> str:
    for category in _CATEGORIES:
        if re.sub(r"[\W_]+", " ", text.lower()).strip() == category.lower().replace("-", " "):
            return category
    raise ValueError(f"{text!r} is not a filer category")


SEC_TRANSFORMATIONS: dict[str, Callable[[str], str]] = {
    "boolballotbox": _ballot_box,
    "durday": lambda text: _duration(0, 0, int(_amount(text))),
    "durhour": _hours,
    "durmonth": _months,
    "durweek": lambda text: _duration(0, 0, int(_amount(text) * 7)),
    "durwordsen": _duration_in_words,
    "duryear": _years,
    "entityfilercategoryen": _filer_category,
    "exchnameen": _exchange,
    "numwordsen": lambda text: str(number_in_words(text)),
    "stateprovnameen": _state,
}
"""What each makes of a text with single blanks; they raise ValueError where it does not fit."""
