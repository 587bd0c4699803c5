"""Computes the scores of a benchmark run again from its raw answers, for readers who trust no library.

    python docs/results/recompute.py runs/demo --methods base multitask xlora oracle --resamples 2000

Nothing but Python's standard library is used, and nothing of FinLoRA. Answers are scored from prediction and
target alone, after the descriptions of the tasks. Intervals come from a bootstrap of this file. All means
over seeds, over tasks and of single seeds are compared with those in `results.jsonl`. The exit status is 1 if
an answer is stored with another score, if a mean differs by more than 1e-9, or if an end of an interval
differs by more than 0.5 points and by more than random draws explain.
"""

import argparse
import ast
import json
import operator
import random
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import partial
from math import ceil, isnan, nan, prod, sqrt
from pathlib import Path
from statistics import fmean
from string import punctuation

# How one answer is scored: 0.0 (wrong) to 1.0 (right).


def score_label(prediction: str, target: str) -> float:
    """Same text, blind to case, number of blanks and punctuation at the end."""
    one, other = (" ".join(text.lower().split()).rstrip(" .,;:!?") for text in (prediction, target))
    return float(one == other)


def score_tags(prediction: str, target: str) -> float:
    """Share of right tags in a comma-separated list, by place; missing and surplus are wrong, case counts."""
    lists = (text.split(",") for text in (prediction, target))
    given, right = ([tag.strip().removeprefix("us-gaap:") for tag in tags] for tags in lists)
    return sum(map(str.__eq__, given, right)) / max(len(given), len(right))


NUMBER = re.compile(
    r"[$€£¥]?\s*(?P<bracket>\()?[$€£¥]?\s*(?P<sign>[+-]?)[$€£¥]?\s*"
    r"(?P<digits>(\d{1,3}(,\d{3})+|\d+)(\.\d*)?|\.\d+)\s*%?(?(bracket)\))\s*%?"
)


def number(text: str) -> Fraction | None:
    """The whole text as a number: -1200 for "($1,200.0)", "(-1200)"; currency, percent signs do not count."""
    if not (found := NUMBER.fullmatch(text.strip())):
        return None
    negative = found["sign"] == "-" or (found["bracket"] and not found["sign"])
    return Fraction(found["digits"].replace(",", "")) * (-1 if negative else 1)


def score_number(
    prediction: str, target: str, within: Fraction | int = 0, share: Fraction | int = 0
) -> float:
    """Same number, within a distance or a share of the right one; a target that is no number is a label."""
    given, right = number(prediction), number(target)
    if right is None:
        return score_label(prediction, target)
    return float(given is not None and abs(given - right) <= max(within, abs(right) * share))


PRIME = 2**61 - 1
OPERAND = re.compile(r"(\d{1,3}(,\d{3})+|\d+)(\.\d+)?|\.\d+|((us-gaap|[A-Za-z]\w*):)?[A-Za-z_]\w*")
OPERATIONS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul}
OPERATIONS[ast.Div] = lambda one, other: one * pow(other, -1, PRIME)


def score_formula(prediction: str, target: str) -> float:
    """Algebraic equality with tags and numbers as variables: 6 / 3 is not 2, a / b * 100 is 100 * a / b.

    Formulas that are equal as fractions of polynomials have equal values; others differ almost everywhere
    (Schwartz 1980). So both are evaluated at one random point, modulo a prime of 61 bits. 1 stands for
    itself, since 1 - a / b is (b - a) / b; both must have the same numbers, so that 0 is not 0 / 9 * 100.
    """
    right, given = formula(target), formula(prediction)
    if right is None:
        return score_label(prediction, target)
    return float(given is not None and numbers(given) == numbers(right) and value(given) == value(right))


def formula(text: str) -> ast.AST | None:
    """The text's expression over names that say their value, and whether it is a number's; None for none."""

    def name(operand: re.Match[str]) -> str:
        found = operand.group().removeprefix("us-gaap:").replace(",", "")
        if found[0] not in ".0123456789":
            return f" v{random.Random(found).randrange(1, PRIME)} "
        key = Fraction(found)
        return f" n{1 if key == 1 else random.Random(str(key)).randrange(1, PRIME)} "

    source = OPERAND.sub(name, " ".join(text.split())).strip()
    if re.search(r"[^nv0-9+*/() -]|\*\*|//", source):
        return None
    try:
        expression = ast.parse(source, mode="eval").body
        value(expression)
    except (SyntaxError, RecursionError, MemoryError):
        return None
    return expression


def numbers(node: ast.AST) -> set[int]:
    """The values of the numbers in an expression, but for a 1 that is added or subtracted."""
    match node:
        case ast.Name(id=name):
            return {int(name[1:])} if name[0] == "n" else set()
        case ast.UnaryOp(operand=operand):
            return numbers(operand)
        case ast.BinOp(left=left, op=ast.Add() | ast.Sub(), right=right):
            return set().union(*(numbers(one) for one in (left, right) if getattr(one, "id", "") != "n1"))
        case ast.BinOp(left=left, right=right):
            return numbers(left) | numbers(right)
    return set()


def value(node: ast.AST) -> float:
    """Value at the random point; nan (equal to nothing) where the expression divides by 0."""
    try:
        return evaluate(node)
    except ValueError:  # zero has no inverse
        return nan


def evaluate(node: ast.AST) -> int:
    """Value modulo PRIME of an expression over names that say their value."""
    match node:
        case ast.Name(id=name):
            return int(name[1:])
        case ast.UnaryOp(op=sign, operand=operand):
            return evaluate(operand) * (-1 if isinstance(sign, ast.USub) else 1) % PRIME
        case ast.BinOp(left=left, op=operation, right=right):
            return OPERATIONS[type(operation)](evaluate(left), evaluate(right)) % PRIME
    raise SyntaxError("not a formula")


def score_text(prediction: str, target: str) -> float:
    """F1 of shared words as in SQuAD: lower case, ASCII punctuation deleted, without articles."""
    texts = ("".join(c for c in text.lower() if c not in punctuation) for text in (prediction, target))
    given, right = (Counter(re.sub(r"\b(a|an|the)\b", " ", text).split()) for text in texts)
    shared = (given & right).total()
    return 2 * shared / (given.total() + right.total()) if shared else float(given == right)


SCORERS: dict[str, Callable[[str, str], float]] = {
    **dict.fromkeys(("fpb", "fiqa", "tfns", "nwgi", "sentiment", "headline", "ner"), score_label),
    **dict.fromkeys(("finer", "fnxl"), score_tags),
    **dict.fromkeys(("xbrl_term", "financebench"), score_text),
    **dict.fromkeys(("xbrl_formula", "xbrl_formula_calc"), score_formula),
    "xbrl_tags": lambda prediction, target: float(score_tags(prediction, target) == 1),  # a single tag
    "xbrl_value": score_number,
    "financial_math": partial(score_number, within=Fraction("0.005"), share=Fraction(1, 10**6)),
}

# Answers of a run.
Key = tuple[str, int | None, str]
"""Method, router seed (None: the mean over seeds, or a method that has none), task."""


def read_lines(path: Path) -> list[dict]:
    """All objects of a JSONL file."""
    if not path.is_file():
        sys.exit(f"There is no file {path}; give the folder of a finished run, and methods that it compared.")
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def read_answers(run: Path, method: str, task: str) -> Iterator[tuple[Key, list[dict]]]:
    """Answers of a method to a task, for each router seed; the oracle is the expert of the task."""
    folder = run / "cells" / (f"expert/{task}" if method == "oracle" else method.replace(":", "/"))
    for seed in sorted(int(sub.name) for sub in folder.glob("*") if sub.name.isdigit()) or [None]:
        path = folder / ("" if seed is None else str(seed)) / f"{task}.jsonl"
        *answers, summary = read_lines(path)
        if "summary" not in summary:
            sys.exit(f"{path} is incomplete: its last line is no summary.")
        yield (method, seed, task), answers


def score(task: str, answer: dict) -> float:
    """Score of an answer, 0 to 100; a prompt too long for the base was not asked, which is wrong."""
    if task not in SCORERS:
        return 100 * answer["score"]
    return 0.0 if answer.get("too_long") else 100 * SCORERS[task](answer["prediction"], answer["target"])


def clusters_of(answers: dict[Key, list[dict]]) -> dict[str, list]:
    """The cluster of each example of each task: its group, or one of its own."""
    examples: dict[str, list] = {}
    for key, cell in answers.items():
        asked = [(answer["target"], answer["group"]) for answer in cell]
        if examples.setdefault(key[2], asked) != asked:
            sys.exit(f"The answers of {key} are to other examples than those before, so nothing is paired.")
    return {task: [group or i for i, (_, group) in enumerate(asked)] for task, asked in examples.items()}


# Means and intervals.


def table_of(cells: dict[Key, float], seeds: dict[str, list], tasks: list[str]) -> dict[Key, float]:
    """All numbers: those of single seeds, means over the seeds given, and means over tasks."""
    table = dict(cells)
    for method, drawn in seeds.items():
        for task in tasks:
            table[method, None, task] = fmean(cells[method, seed, task] for seed in drawn)
    for method, seed in dict.fromkeys(key[:2] for key in table):
        table[method, seed, "macro"] = fmean(table[method, seed, task] for task in tasks)
    return table


def bootstrap(scores: dict[Key, list], clusters: dict[str, list], seeds: dict[str, list], count: int) -> dict:
    """Sorted draws of all numbers, by key.

    In each draw a task's clusters are drawn with replacement, as many as there are, the same for all methods,
    and the score is the mean of their examples. Router seeds are drawn likewise, the same for all tasks.
    """
    members: dict[str, list[list[int]]] = {}
    for task, of in clusters.items():
        members[task] = [[i for i, one in enumerate(of) if one == name] for name in dict.fromkeys(of)]
    sizes = {task: [len(items) for items in of] for task, of in members.items()}
    sums = {key: [sum(cell[i] for i in of) for of in members[key[2]]] for key, cell in scores.items()}
    random_state = random.Random(0)
    draws = defaultdict(list)
    for _ in range(count):
        picked = {task: random_state.choices(range(len(of)), k=len(of)) for task, of in sizes.items()}
        items = {task: sum(map(of.__getitem__, picked[task])) for task, of in sizes.items()}
        cells = {key: sum(map(of.__getitem__, picked[key[2]])) / items[key[2]] for key, of in sums.items()}
        drawn = {method: random_state.choices(of, k=len(of)) for method, of in seeds.items()}
        for key, value in table_of(cells, drawn, list(clusters)).items():
            draws[key].append(value)
    return {key: sorted(values) for key, values in draws.items()}


def percentile(ordered: list[float], share: float) -> float:
    """Value below which a share of ordered values lies, in proportion between neighbours."""
    place = min(max(share, 0.0), 1.0) * (len(ordered) - 1)
    below, above = ordered[int(place)], ordered[ceil(place)]
    return below + place % 1 * (above - below)


def interval(values: list[float], draws: list[float], clusters: list[int]) -> tuple[float, float]:
    """Percentiles 2.5 and 97.5, or an exact bound where each task is all wrong or all right.

    Args:
        values: The score of a task, or the scores of all tasks for their mean.
        draws: Sorted draws of that number.
        clusters: Number of clusters of each task.
    """
    if any(value not in (0, 100) for value in values):
        return percentile(draws, 0.025), percentile(draws, 0.975)
    below, above = (
        bound([size for value, size in zip(values, clusters, strict=True) if value == end])
        for end in (100, 0)
    )
    return fmean(values) - 100 * below / len(values), fmean(values) + 100 * above / len(values)


def bound(clusters: list[int]) -> float:
    """Largest sum of shares of right answers under which all being wrong still has a chance of 2.5 %.

    For one task it is Clopper and Pearson's bound. With q the shares of wrong answers, the sum of 1 - q is
    largest, the product of q ** clusters held, where q is in proportion to the clusters, but at most 1: the
    proportion is found by halving.
    """
    low, high = 0.0, 1.0 / min(clusters, default=1)
    for _ in range(200):
        middle = (low + high) / 2
        chance = prod(min(1.0, middle * size) ** size for size in clusters)
        low, high = (middle, high) if chance < 0.025 else (low, middle)
    return sum(1 - min(1.0, high * size) for size in clusters)


def verdict_on(here: tuple, stored: tuple, draws: list[float], stored_resamples: int) -> str:
    """How a stored number and its interval relate to those computed here.

    Scores lie on a grid, so the ends of two bootstraps may be a step apart. They agree if four standard
    errors of the share of draws beyond an end, in both together, reach from one to the other.
    """
    if not abs(stored[0] - here[0]) <= 1e-9:
        return "NOT STORED" if isnan(stored[0]) else "ANOTHER MEAN"
    error = 4 * sqrt(0.025 * 0.975 * (1 / len(draws) + 1 / stored_resamples))
    far = [i for i in (1, 2) if abs(stored[i] - here[i]) > 0.5]
    for i in far:
        lowest, highest = (percentile(draws, (0.025, 0.975)[i - 1] + way * error) for way in (-1, 1))
        if here[0] in (0, 100) or not lowest - 1e-9 <= stored[i] <= highest + 1e-9:
            return "ANOTHER INTERVAL"
    return "a step apart" if far else "same"


def stored_scores(run: Path) -> dict[Key, tuple]:
    """Value and interval of every stored score of the protocol that all runs have."""
    scores = (one for one in read_lines(run / "results.jsonl") if one["metric"] == "score")
    usual = (one for one in scores if one.get("protocol", "in_distribution") == "in_distribution")
    return {(n["method"], n["seed"], n["task"]): (n["value"], n["low"], n["high"]) for n in usual}


def compare(run: Path, methods: list[str], resamples: int) -> bool:
    """Print every number beside the stored one; whether all agree."""
    config = json.loads((run / "config.json").read_text(encoding="utf-8"))
    if config.get("more_expert_seeds"):
        sys.exit(f"{run} has experts of several seeds, whose intervals are not computed here.")
    tasks = config["tasks"]
    answers = dict(pair for task in tasks for method in methods for pair in read_answers(run, method, task))
    clusters = clusters_of(answers)
    scores = {key: [score(key[2], answer) for answer in cell] for key, cell in answers.items()}
    seeds = {method: [key[1] for key in answers if key[::2] == (method, tasks[0])] for method in methods}
    values = table_of({key: fmean(cell) for key, cell in scores.items()}, seeds, tasks)
    draws = bootstrap(scores, clusters, seeds, resamples)
    stored, verdicts, differing = stored_scores(run), Counter(), 0
    for key in sorted(values, key=lambda key: methods.index(key[0])):
        parts = tasks if key[2] == "macro" else [key[2]]
        sizes = [len({*clusters[task]}) for task in parts]
        here = (values[key], *interval([values[*key[:2], task] for task in parts], draws[key], sizes))
        there = stored.get(key, (nan, nan, nan))
        verdict = verdict_on(here, there, draws[key], config["resamples"])
        verdicts[verdict] += 1
        numbers = "   stored ".join(f"{a:7.3f} ({b:7.3f} to {c:7.3f})" for a, b, c in (here, there))
        print(f"{key[0]:<12}{'' if key[1] is None else key[1]:<3}{key[2]:<18}{numbers}   {verdict}")
    for key, cell in answers.items():
        for line, answer in enumerate(cell):
            if abs(scores[key][line] - 100 * answer["score"]) > 1e-9:
                print(f"{key}, answer {line + 1}: {scores[key][line]} here, {100 * answer['score']} stored")
                differing += 1
    taken = [task for task in tasks if task not in SCORERS]
    print(f"answers: {sum(map(len, scores.values()))}, of which {differing} are stored with another score")
    print(f"tasks not scored here, whose stored scores were taken: {', '.join(taken) or 'none'}")
    print("numbers: " + ", ".join(f"{count} {verdict}" for verdict, count in verdicts.items()))
    print("does not agree" if differing or verdicts.keys() - {"same", "a step apart"} else "agrees")
    return not (differing or verdicts.keys() - {"same", "a step apart"})


def main() -> None:
    """The command line; the exit status says whether all agrees."""
    parser = argparse.ArgumentParser(description="Computes the scores of a benchmark run again.")
    parser.add_argument("run", type=Path)
    parser.add_argument("--methods", nargs="+", default=["base", "multitask", "xlora", "oracle"])
    parser.add_argument("--resamples", type=int, default=2000)
    given = parser.parse_args()
    if not (given.run / "config.json").is_file():
        parser.error(f"{given.run} has no config.json; give the folder of a finished run.")
    sys.exit(not compare(given.run, given.methods, given.resamples))


if __name__ == "__main__":
    main()
