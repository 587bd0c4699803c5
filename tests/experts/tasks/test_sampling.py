"""Drawing examples: whole groups, the same ones for a seed."""

from finlora.experts.tasks import Example
from finlora.experts.tasks.sampling import (
    mask_numbers,
    same_answer,
    same_text,
    sample_groups,
    seen_target_share,
    split_groups,
    without_shared,
)

EXAMPLES = [
    Example(f"question {group} {number}", "t", f"g{group}") for group in range(30) for number in range(4)
]


def test_groups_stay_whole_and_the_limit_is_kept():
    """42 examples are not a multiple of 4, so 40 are drawn."""
    taken, rest = split_groups(EXAMPLES, 42, seed=0)
    assert len(taken) == 40
    assert not {example.group for example in taken} & {example.group for example in rest}
    assert sorted([*taken, *rest], key=EXAMPLES.index) == EXAMPLES
    assert taken == sorted(taken, key=EXAMPLES.index)


def test_the_seed_decides():
    """The same seed draws the same groups whatever the order of the input; another seed draws others."""
    drawn = sample_groups(EXAMPLES, 40, seed=0)
    assert set(sample_groups(EXAMPLES[::-1], 40, seed=0)) == set(drawn)
    assert set(sample_groups(EXAMPLES, 40, seed=1)) != set(drawn)
    assert sample_groups(EXAMPLES, 1000, seed=0) == EXAMPLES


def test_examples_without_group_stand_alone():
    """They are not one big group."""
    alone = [Example(f"question {number}", "t") for number in range(10)]
    assert len(sample_groups(alone, 7, seed=0)) == 7


def test_shared_examples_are_found_despite_case_blanks_and_numbers():
    """The same sentence with other amounts would leak its answer."""
    test = [Example("Sales rose  5 %", "up"), Example("Sales fell 5 %", "Down  now")]
    train = [Example("sales ROSE 7,5 %", "x"), Example("sales rose 123 %", "down now")]
    assert mask_numbers("A  1,250.5 b") == "a 0,0.0 b"
    assert without_shared(test, train, same_text) == [test[1]]
    assert without_shared(test, train, same_answer) == [test[0]]


def test_share_of_targets_seen_in_training():
    """One of the two test targets occurs in train."""
    train, test = [Example("a", "x")], [Example("b", "x"), Example("c", "y")]
    assert seen_target_share(train, test) == 0.5
    assert seen_target_share(train, []) == 0.0
