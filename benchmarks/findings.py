"""What a run found, in sentences. Better and worse are said only where the 95 % interval says so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .methods import EXPERT_PREFIX, Method
from .results import Result, ResultIndex
from .scoring import COMPARED
from .statistics import MACRO

REFERENCES = ("multitask", "uniform", "base")


def with_interval(result: Result, unit: str = "", *, signed: bool = False) -> str:
    """A number with its interval as text, for example `91.2 (90.1 to 92.3)`."""
    form = "+.1f" if signed else ".1f"
    if result.low is None or result.high is None:
        return f"{result.value:{form}}{unit}"
    return f"{result.value:{form}}{unit} ({result.low:{form}} to {result.high:{form}})"


def best_expert(index: ResultIndex, tasks: Sequence[str]) -> str:
    """Name of the single expert with the highest macro score; chosen on the test set, which flatters it."""
    return max((f"{EXPERT_PREFIX}{task}" for task in tasks), key=lambda name: index.get(name, MACRO).value)


def verdict(difference: Result) -> str:
    """`better`, `worse` or `no difference shown`."""
    if difference.low is not None and difference.low > 0:
        return "better"
    if difference.high is not None and difference.high < 0:
        return "worse"
    return "no difference shown"


def headline(index: ResultIndex, methods: Mapping[str, Method], tasks: Sequence[str]) -> list[str]:
    """The findings of a run, most important first; the first one stands alone."""
    title = methods[COMPARED].title
    score = index.get(COMPARED, MACRO)
    sentence = (
        f"{title} scores {with_interval(score)} on average over {len(tasks)} tasks "
        "without being told which task it is"
    )
    ratio = index.find(COMPARED, MACRO, "ratio:oracle")
    if ratio is not None:
        oracle = index.get("oracle", MACRO)
        sentence += (
            f": {with_interval(ratio, ' %')} of the oracle, which picks the right expert by the task's "
            f"label and scores {with_interval(oracle)}"
        )
    other_routers = [name for name, method in methods.items() if method.has_seeds and name != COMPARED]
    rivals = [*REFERENCES, best_expert(index, tasks), *other_routers, "oracle"]
    return [f"{sentence}.", *(_comparison(index, methods, title, rival) for rival in rivals)]


def _comparison(index: ResultIndex, methods: Mapping[str, Method], title: str, rival: str) -> str:
    difference = index.get(COMPARED, MACRO, f"difference:{rival}")
    name = shown_title(methods[rival])
    name = name if methods[rival].has_seeds else f"the {name[0].lower()}{name[1:]}"
    points = with_interval(difference, signed=True)
    word = verdict(difference)
    if word == "no difference shown":
        return f"No difference shown between {title} and {name}: {points} points."
    return f"{title} is {word} than {name}: {points} points."


def shown_title(method: Method) -> str:
    """A method's name in tables, where the only single expert is the best one."""
    if method.name.startswith(EXPERT_PREFIX):
        return f"Best single expert ({method.name.removeprefix(EXPERT_PREFIX)})"
    return method.title
