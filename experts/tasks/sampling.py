"""Drawing and separating examples: groups stay whole, and the same seed gives the same examples."""

import random
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

from .task import Example

_DIGITS = re.compile(r"\d+")


def sample_groups(examples: Sequence[Example], limit: int, seed: int) -> list[Example]:
    """At most ``limit`` examples, whole groups in random order of the groups; the input's order is kept."""
    taken, _ = split_groups(examples, limit, seed)
    return taken


def split_groups(examples: Sequence[Example], limit: int, seed: int) -> tuple[list[Example], list[Example]]:
    """Like ``sample_groups``, and what is left."""
    sizes: dict[str, int] = defaultdict(int)
    for example in examples:
        sizes[_group(example)] += 1
    order = sorted(sizes)
    random.Random(seed).shuffle(order)
    taken: set[str] = set()
    room = limit
    for group in order:
        if sizes[group] <= room:
            taken.add(group)
            room -= sizes[group]
    chosen = [example for example in examples if _group(example) in taken]
    rest = [example for example in examples if _group(example) not in taken]
    return chosen, rest


def without_shared(
    examples: Iterable[Example], others: Iterable[Example], key: Callable[[Example], str]
) -> list[Example]:
    """The examples whose key none of the others has."""
    known = {key(other) for other in others}
    return [example for example in examples if key(example) not in known]


def same_text(example: Example) -> str:
    """Key for prompts that differ only in case, blanks or numbers."""
    return mask_numbers(example.context)


def same_answer(example: Example) -> str:
    """Key for targets that differ only in case or blanks."""
    return " ".join(example.target.casefold().split())


def mask_numbers(text: str) -> str:
    """Text in lower case with every run of digits written as 0 and single blanks."""
    return " ".join(_DIGITS.sub("0", text.casefold()).split())


def seen_target_share(train: Iterable[Example], test: Sequence[Example]) -> float:
    """Share (0 to 1) of test examples whose target occurs as a target in train."""
    seen = {example.target for example in train}
    return sum(example.target in seen for example in test) / len(test) if test else 0.0


def _group(example: Example) -> str:
    return example.group or example.context
