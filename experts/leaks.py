"""What splits share, and what repeats inside each: equal prompts, other numbers, near duplicates.

Near duplicates are found by MinHash (Broder 1997) as https://github.com/ekzhu/datasketch implements it, and
then compared in full.
"""

from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from datasketch import MinHash, MinHashLSH

from .errors import FinLoraError
from .tasks.sampling import mask_numbers
from .tasks.task import Example

LEVELS = ("exact", "numbers masked", "near")
"""What counts as the same prompt; each level includes those before it.

``numbers masked`` ignores case, blanks and which numbers stand there. ``near`` joins prompts whose sets of
runs of three words, numbers masked, have a Jaccard similarity of at least `NEAR_SIMILARITY`, and what such a
prompt is joined with in turn.
"""
NEAR_SIMILARITY = 0.8
_PERMUTATIONS = 128
_WORDS_A_RUN = 3
_WORDING_SHARE = 0.5
_MIN_EXAMPLES_FOR_WORDING = 20


@dataclass(frozen=True)
class Overlap:
    """How many examples of a split have the same prompt as an example of another split, or of their own.

    Attributes:
        first: Name of a split.
        second: Name of another split; the same name again for repeats inside one split.
        counts: By level (`LEVELS`), the examples of ``first`` and of ``second`` that have a partner.
        pairs: By level, one pair of positions (from 0) in ``first`` and ``second``, to look at.
    """

    first: str
    second: str
    counts: dict[str, tuple[int, int]]
    pairs: dict[str, tuple[int, int]]

    def text(self) -> str:
        """In lines for people; examples are numbered from 1, as lines of a JSONL file are."""
        inside = self.first == self.second
        lines = [f"repeated inside {self.first}:" if inside else f"shared by {self.first} and {self.second}:"]
        for level in LEVELS:
            of_first, of_second = self.counts[level]
            found = (
                f"{of_first:,}" if inside else f"{of_first:,} of {self.first}, {of_second:,} of {self.second}"
            )
            if level in self.pairs:
                example, partner = self.pairs[level]
                found += f" (such as example {example + 1:,} and {partner + 1:,})"
            lines.append(f"  {level}: {found}")
        return "\n".join(lines)


@dataclass(frozen=True)
class LeakReport:
    """What splits share, and what repeats inside each.

    Attributes:
        sizes: Examples by split.
        overlaps: Between each two splits.
        repeats: Inside each split.
    """

    sizes: dict[str, int]
    overlaps: tuple[Overlap, ...]
    repeats: tuple[Overlap, ...]

    def text(self) -> str:
        """In lines for people."""
        sizes = [f"{split}: {size:,} examples" for split, size in self.sizes.items()]
        return "\n".join(sizes + [overlap.text() for overlap in (*self.overlaps, *self.repeats)])


def leak_report(splits: Mapping[str, Sequence[Example]]) -> LeakReport:
    """Compare the prompts of splits with one another and with themselves.

    Runs of words that more than half of all examples share are the wording of the task and do not count for
    ``near``, or every two questions of a task would be near duplicates.

    Args:
        splits: Examples by name of the split, such as train and test of one task; one alone is enough to find
            repeats.

    Raises:
        FinLoraError: There are no splits.
    """
    if not splits:
        raise FinLoraError("There is nothing to compare; give the examples of at least one split.")
    contexts = [example.context for examples in splits.values() for example in examples]
    masked = [mask_numbers(context) for context in contexts]
    clusters: dict[str, Sequence[Hashable]] = dict(
        zip(LEVELS, (contexts, masked, _near_clusters(masked)), strict=True)
    )
    positions: dict[str, dict[str, dict[Hashable, list[int]]]] = {}
    start = 0
    for split, examples in splits.items():
        positions[split] = {level: defaultdict(list) for level in LEVELS}
        for level in LEVELS:
            for index, cluster in enumerate(clusters[level][start : start + len(examples)]):
                positions[split][level][cluster].append(index)
        start += len(examples)
    return LeakReport(
        sizes={split: len(examples) for split, examples in splits.items()},
        overlaps=tuple(
            Overlap(first, second, *_shared(positions[first], positions[second]))
            for first, second in combinations(splits, 2)
        ),
        repeats=tuple(Overlap(split, split, *_repeated(positions[split])) for split in splits),
    )


_Positions = Mapping[str, Mapping[Hashable, list[int]]]
"""By level, the positions of the examples of one split in each cluster of equal or similar prompts."""
_Findings = tuple[dict[str, tuple[int, int]], dict[str, tuple[int, int]]]


def _shared(first: _Positions, second: _Positions) -> _Findings:
    counts, pairs = {}, {}
    for level in LEVELS:
        common = [cluster for cluster in first[level] if cluster in second[level]]
        counts[level] = (
            sum(len(first[level][cluster]) for cluster in common),
            sum(len(second[level][cluster]) for cluster in common),
        )
        if common:
            pairs[level] = (first[level][common[0]][0], second[level][common[0]][0])
    return counts, pairs


def _repeated(split: _Positions) -> _Findings:
    counts, pairs = {}, {}
    for level in LEVELS:
        repeated = [examples for examples in split[level].values() if len(examples) > 1]
        count = sum(map(len, repeated))
        counts[level] = (count, count)
        if repeated:
            pairs[level] = (repeated[0][0], repeated[0][1])
    return counts, pairs


def _near_clusters(texts: Sequence[str]) -> list[int]:
    """One number an example; equal for texts joined by a chain of near duplicates."""
    runs_of = {text: _runs(text) for text in dict.fromkeys(texts)}
    _drop_wording(runs_of, Counter(run for text in texts for run in runs_of[text]), len(texts))
    index = MinHashLSH(threshold=NEAR_SIMILARITY, num_perm=_PERMUTATIONS)
    cluster = {text: number for number, text in enumerate(runs_of)}
    members = {number: [text] for text, number in cluster.items()}
    for text, runs in runs_of.items():
        signature = MinHash(num_perm=_PERMUTATIONS)
        signature.update_batch([run.encode() for run in sorted(runs)])
        similar: list[Any] = index.query(signature)
        for other in similar:
            old, new = cluster[text], cluster[other]
            if old != new and _jaccard(runs, runs_of[other]) >= NEAR_SIMILARITY:
                for member in members.pop(old):
                    cluster[member] = new
                    members[new].append(member)
        index.insert(text, signature)
    return [cluster[text] for text in texts]


def _runs(text: str) -> set[str]:
    words = text.split()
    last = max(len(words) - _WORDS_A_RUN, 0)
    return {" ".join(words[start : start + _WORDS_A_RUN]) for start in range(last + 1)}


def _drop_wording(runs_of: dict[str, set[str]], frequency: Counter[str], examples: int) -> None:
    if examples < _MIN_EXAMPLES_FOR_WORDING:
        return
    wording = {run for run, count in frequency.items() if count > examples * _WORDING_SHARE}
    for text, runs in runs_of.items():
        # What is nothing but wording is compared as it stands.
        runs_of[text] = runs - wording or runs


def _jaccard(first: set[str], second: set[str]) -> float:
    return len(first & second) / len(first | second)
