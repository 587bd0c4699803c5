"""FinLoRA's scorer as an interval, against its procedure carried out over orders of the labels."""

import itertools
import random
from pathlib import Path

import pytest

from finlora.experts.errors import FinLoraError
from finlora.experts.tasks import read_examples
from finlora.experts.tasks.data_folder import data_file, data_folder
from finlora.experts.tasks.finlora_compat import as_pandas_2, compat_score


def accuracy(answers: list[str], targets: list[str], order: list[str]) -> float:
    """FinLoRA's accuracy with its labels in this order: the first label found, ties by the order."""
    right = 0
    for answer, target in zip(answers, targets, strict=True):
        places = [(answer.lower().find(label.lower()), label.lower()) for label in order]
        found = sorted((place for place in places if place[0] != -1), key=lambda place: place[0])
        right += bool(found) and found[0][1] == target.lower()
    return 100 * right / len(answers)


def test_the_interval_is_exact():
    """Its ends are those over all orders of up to six labels, prefixes of each other, over any answers."""
    chance = random.Random(0)
    labels = ("a", "ab", "abc", "abd", "b", "ba", "")
    seen = 0
    for _ in range(60):
        targets = [chance.choice(labels) for _ in range(8)]
        answers = [chance.choice([*labels, "xab", "say abd", "zz", "ABC"]) for _ in targets]
        orders = itertools.permutations(sorted(set(targets)))
        every = {accuracy(answers, targets, list(order)) for order in itertools.islice(orders, 5040)}
        score = compat_score(answers, targets)
        assert (score.lowest, score.highest) == pytest.approx((min(every), max(every)))
        seen += score.lowest < score.highest
    assert seen > 10


def test_wrong_answers_inflate_f1_as_there():
    """Accuracy 1/2 becomes an F1 of 2/3, since each wrong answer is a class without support."""
    score = compat_score(["positive", "neutral", "x", "y"], ["positive", "neutral", "positive", "neutral"])
    assert score.lowest == score.highest == 50
    assert score.lowest_f1 == score.highest_f1 == pytest.approx(100 * 2 / 3)


def test_lists_are_cut_and_filled():
    """A missing tag shifts those after it; surplus tags are dropped."""
    assert compat_score(["A,B", "C,D,E"], ["A,B,F", "C,D"], lists=True).highest == 80
    assert compat_score(["B"], ["A,B"], lists=True).highest == 0


def test_only_what_follows_the_last_delimiter_counts():
    """As in FinLoRA's inference code."""
    assert compat_score(["no Answer: yes"], ["yes"]).highest == 100


def test_numbers_are_read_as_pandas_2_does():
    """Whole numbers lose their decimal point only where all are whole."""
    assert as_pandas_2(["3875393000000.0", "-5.0"]) == ["3875393000000", "-5"]
    assert as_pandas_2(["3.0", "3.01", "2.50"]) == ["3.0", "3.01", "2.5"]
    assert as_pandas_2(["us-gaap:Assets", "4.0"]) == ["us-gaap:Assets", "4.0"]


def test_nothing_to_score_is_refused():
    """Empty or unequal lists are a mistake of the caller."""
    for predictions, targets in (([], []), (["a"], ["a", "b"])):
        with pytest.raises(ValueError, match="predictions for"):
            compat_score(predictions, targets)


@pytest.mark.parametrize(
    ("name", "lists", "lowest"),
    [
        ("finlora/history/finer_test_batched.jsonl", True, (75, 86)),
        ("finlora/history/fnxl_test_batched.jsonl", True, (97, 99)),
        ("finlora/test/formula_test.jsonl", False, (78, 89)),
        ("finlora/rebuilt/xbrl_extract_tags_test.jsonl", False, (90, 96)),
        ("finlora/rebuilt/xbrl_extract_value_test.jsonl", False, (100, 100)),
        ("finlora/rebuilt/xbrl_extract_formula_calculations_test.jsonl", False, (100, 100)),
        ("finlora/test/fpb_test.jsonl", False, (100, 100)),
        ("finlora/test/nwgi_test.jsonl", False, (100, 100)),
    ],
)
def test_published_answers_against_themselves(name, lists, lowest):
    """Random orders lie inside the interval; perfect answers reach 100 in the best order, not in each."""
    try:
        path = data_file(data_folder(), name)
    except FinLoraError as error:
        pytest.skip(f"no published data here: {error}")
    targets = as_pandas_2([example.target for example in read_examples(Path(path))])
    score = compat_score(targets, targets, lists=lists)
    assert score.highest == 100
    assert lowest[0] <= score.lowest <= lowest[1]
    single = [tag for target in targets for tag in target.split(",")] if lists else targets
    for seed in range(3):
        order = sorted(set(single))
        random.Random(seed).shuffle(order)
        assert score.lowest <= accuracy(single, single, order) <= score.highest
