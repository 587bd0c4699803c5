"""Written text and what it stands for, by the registries' own names."""

import pytest

from finlora.experts.filings.numerals import decimals_of_precision, scaled
from finlora.experts.filings.transformations import transform

REGISTRY = "http://www.xbrl.org/inlineXBRL/transformation/2020-02-12"
SEC = "http://www.sec.gov/inlineXBRL/transformation/2015-08-31"


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("num-dot-decimal", " 1,234.50 ", "1234.50"),
        ("numdotdecimal", "1 234", "1234"),
        ("num-dot-decimal-apos", "1\u2019234.5", "1234.5"),
        ("numcommadot", "1,234,567.8", "1234567.8"),
        ("num-comma-decimal", "1.234,5", "1234.5"),
        ("numdotcomma", "1.234.567", "1234567"),
        ("numspacecomma", "1\u00a0234,5", "1234.5"),
        ("num-unit-decimal", "1,234 dollars 5 cents", "1234.05"),
        ("fixed-zero", "\u2014", "0"),
        ("zerodash", "-", "0"),
        ("numdash", "-", "0"),
        ("fixed-empty", "None", ""),
        ("nocontent", "None", ""),
        ("fixed-true", "we did", "true"),
        ("booleanfalse", "no", "false"),
        ("date-monthname-day-year-en", "March\u00a029, 2025", "2025-03-29"),
        ("datemonthdayyearen", "Sept. 5, 2020", "2020-09-05"),
        ("date-day-monthname-year-en", "31st day of December, 2020", "2020-12-31"),
        ("dateslashus", "12/31/10", "2010-12-31"),
        ("datedoteu", "31.12.2010", "2010-12-31"),
        ("date-year-month-day", "2020-2-29", "2020-02-29"),
        ("date-monthname-day-en", "February 29", "--02-29"),
        ("date-month-year", "3/2020", "2020-03"),
        ("date-monthname-year-en", "March 2020", "2020-03"),
    ],
)
def test_the_registries_transformations(name, text, value):
    """Hyphenated names are those of registries 4 and 5, the others older."""
    assert transform(REGISTRY, name, text) == value


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("numwordsen", "twenty-five", "25"),
        ("numwordsen", "One Hundred and two", "102"),
        ("numwordsen", "two million three hundred thousand", "2300000"),
        ("numwordsen", "no", "0"),
        ("durwordsen", "364-day", "P364D"),
        ("durwordsen", "twenty\u2011five years", "P25Y"),
        ("durwordsen", "one year and six months", "P1Y6M"),
        ("durwordsen", "two weeks", "P14D"),
        ("duryear", "5", "P5Y"),
        ("duryear", "17.9", "P17Y10M24D"),
        ("duryear", "0.5", "P0Y6M"),
        ("durmonth", "36", "P36M"),
        ("durday", "397", "P397D"),
        ("durweek", "2", "P14D"),
        ("durhour", "1.5", "PT1H30M"),
        ("boolballotbox", "\u2612", "true"),
        ("boolballotbox", "\u2610", "false"),
        ("exchnameen", "The Nasdaq Stock Market LLC", "NASDAQ"),
        ("exchnameen", "New York  Stock Exchange", "NYSE"),
        ("stateprovnameen", "State of Delaware", "DE"),
        ("entityfilercategoryen", "Large accelerated filer", "Large Accelerated Filer"),
        ("entityfilercategoryen", "Non-accelerated  Filer", "Non-accelerated Filer"),
    ],
)
def test_the_transformations_of_the_sec(name, text, value):
    """Durations as EDGAR writes them."""
    assert transform(SEC, name, text) == value


@pytest.mark.parametrize(
    ("registry", "name", "text", "fault"),
    [
        (REGISTRY, "num-dot-decimal", "abc", "'abc' is not a number"),
        (REGISTRY, "num-dot-decimal", "1.2.3", "is not a number"),
        (REGISTRY, "num-unit-decimal", "5", "with units"),
        (REGISTRY, "date-month-day-year", "2/30/2020", "day"),
        (REGISTRY, "date-monthname-day-en", "Brumaire 3", "not an English month"),
        (REGISTRY, "date-month-day-year", "2/2020", "is not a date"),
        (REGISTRY, "num-roman", "IV", "is not known"),
        (SEC, "edgarprovcountryen", "France", "is not known"),
        (SEC, "numwordsen", "a few", "not a number in words"),
        (SEC, "numwordsen", "", "not a number in words"),
        (SEC, "durwordsen", "a while", "not a duration"),
        (SEC, "duryear", "1e9", "not a number"),
        (SEC, "boolballotbox", "?", "not a ballot box"),
        (SEC, "exchnameen", "Bazaar", "not a known exchange"),
        (SEC, "stateprovnameen", "Atlantis", "not a known state"),
        (SEC, "entityfilercategoryen", "slow", "not a filer category"),
    ],
)
def test_text_that_does_not_fit_is_refused(registry, name, text, fault):
    """Never turned into something else."""
    with pytest.raises(ValueError, match=fault):
        transform(registry, name, text)


def test_scaling_keeps_every_digit():
    """Also beyond the 28 digits that decimal arithmetic rounds to."""
    assert scaled("14.935826", 9, negative=False) == "14935826000"
    assert scaled("5.750", -2, negative=False) == "0.05750"
    assert scaled("1" * 40, 3, negative=True) == "-" + "1" * 40 + "000"
    assert scaled("0.00", 6, negative=True) == "0"
    assert scaled("-5", 0, negative=True) == "5"
    for numeral, scale in (("five", 0), ("1", 10**9), ("NaN", 0), ("1e999999999", 0)):
        with pytest.raises(ValueError, match="is not a number"):
            scaled(numeral, scale, negative=False)


def test_precision_counts_significant_digits():
    """As XBRL 2.1 has it in its table of examples."""
    assert decimals_of_precision("4", "123456") == "-2"
    assert decimals_of_precision("2", "0.0012") == "4"
    assert decimals_of_precision("INF", "1") == "INF"
    assert decimals_of_precision(None, "1") is None
    assert decimals_of_precision("x", "1") is None
