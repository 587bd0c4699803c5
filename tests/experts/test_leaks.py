"""What the leak report finds, and what it must not find."""

import random

import pytest

from finlora.experts.errors import FinLoraError
from finlora.experts.leaks import LEVELS, leak_report
from finlora.experts.tasks import Example

WORDS = [f"word{letter}{other}" for letter in "abcdefghijklmn" for other in "opqrstuvwxyz"]


def prose(seed: int, words: int = 40) -> str:
    """Words in an order of their own."""
    return " ".join(random.Random(seed).choices(WORDS, k=words))


def asked(text: str, instruction: str = "") -> Example:
    return Example(f"{instruction}{text}", "yes")


def counts(overlap) -> list[tuple[int, int]]:
    return [overlap.counts[level] for level in LEVELS]


def test_each_level_includes_the_one_before() -> None:
    """One equal prompt, one with other numbers, one with a word replaced, and one that is new."""
    texts = [prose(seed) for seed in range(4)]
    train = [asked(f"{text} 12 cents") for text in texts[:3]]
    test = [asked(f"{texts[0]} 12 cents"), asked(f"{texts[1]}  7 CENTS"), asked(f"other {texts[2]} 12 cents")]
    report = leak_report({"train": train, "test": [*test, asked(texts[3])]})
    assert report.sizes == {"train": 3, "test": 4}
    assert counts(report.overlaps[0]) == [(1, 1), (2, 2), (3, 3)]
    assert report.overlaps[0].pairs["exact"] == (0, 0)
    assert "exact: 1 of train, 1 of test (such as example 1 and 1)" in report.text()


def test_repeats_inside_a_split_and_splits_of_any_number() -> None:
    """Both of two equal prompts count; three splits have three overlaps."""
    once, twice = asked(prose(1)), asked(prose(2))
    report = leak_report({"a": [once, twice, twice], "b": [twice], "c": [asked(prose(3))]})
    assert [(o.first, o.second) for o in report.overlaps] == [("a", "b"), ("a", "c"), ("b", "c")]
    assert [counts(overlap) for overlap in report.overlaps] == [[(2, 1)] * 3, [(0, 0)] * 3, [(0, 0)] * 3]
    assert [counts(overlap)[0] for overlap in report.repeats] == [(2, 2), (0, 0), (0, 0)]
    assert "repeated inside a:\n  exact: 2 (such as example 2 and 3)" in report.text()
    assert "repeated inside b:\n  exact: 0\n" in report.text()


def test_the_wording_of_a_task_is_no_leak() -> None:
    """A long instruction that all examples share does not make short questions near duplicates."""
    instruction = f"{prose(1000, words=300)} "
    splits = {
        name: [asked(prose(seed), instruction) for seed in seeds]
        for name, seeds in (("train", range(30)), ("test", range(100, 130)))
    }
    report = leak_report(splits)
    assert counts(report.overlaps[0]) == [(0, 0)] * 3
    splits["test"][7] = asked(f"{prose(3)} again", instruction)
    assert counts(leak_report(splits).overlaps[0]) == [(0, 0), (0, 0), (1, 1)]


def test_examples_that_are_nothing_but_wording_are_compared_as_they_stand() -> None:
    """Many copies of one prompt are repeats, however short, and empty splits are no fault."""
    report = leak_report({"train": [asked("Cash?")] * 30, "test": []})
    assert counts(report.repeats[0]) == [(30, 30)] * 3
    assert counts(report.overlaps[0]) == [(0, 0)] * 3


def test_nothing_to_compare_is_an_error() -> None:
    with pytest.raises(FinLoraError, match="at least one split"):
        leak_report({})
