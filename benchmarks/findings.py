"""What a run found, in sentences. Better and worse are said only where the 95 % interval says so."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from .layout import EXPERT_PREFIX
from .methods import Method
from .protocols import PROTOCOLS
from .results import IN_DISTRIBUTION, Result, ResultIndex
from .scoring import COMPARED
from .statistics import MACRO, Interval


def with_interval(result: Result | Interval, unit: str = "", *, signed: bool = False) -> str:
    """A number with its interval as text, for example `91.2 (90.1 to 92.3)`."""
    form = "+.1f" if signed else ".1f"
    if result.low is None or result.high is None:
        return f"{result.value:{form}}{unit}"
    return f"{result.value:{form}}{unit} ({result.low:{form}} to {result.high:{form}})"


def best_expert(index: ResultIndex, tasks: Sequence[str]) -> str:
    """Name of the single expert with the highest macro score; chosen on the test set, which flatters it."""
    return best_of(index, [f"{EXPERT_PREFIX}{task}" for task in tasks])


def best_of(index: ResultIndex, names: Iterable[str], protocol: str = IN_DISTRIBUTION) -> str:
    """The method with the highest macro score; chosen on the test set, which flatters it."""
    return max(names, key=lambda name: index.get(name, MACRO, protocol=protocol).value)


def verdict(difference: Result) -> str:
    """`better`, `worse` or `no difference shown`."""
    if difference.low is not None and difference.low > 0:
        return "better"
    if difference.high is not None and difference.high < 0:
        return "worse"
    return "no difference shown"


def headline(
    index: ResultIndex,
    methods: Mapping[str, Method],
    tasks: Sequence[str],
    protocols: Sequence[str] = (IN_DISTRIBUTION,),
) -> list[str]:
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
    compared = [_comparison(index, methods, rival) for rival in rivals(index, methods, tasks)]
    others = [name for name in protocols if name != IN_DISTRIBUTION]
    return [f"{sentence}.", *compared, *(_in_protocol(index, methods, name) for name in others)]


def rivals(index: ResultIndex, methods: Mapping[str, Method], tasks: Sequence[str]) -> list[str]:
    """The methods that a sceptic asks about first: the strongest of each kind, and the references."""
    merges = _untold(methods, "merge")
    names = [
        *(name for name, method in methods.items() if method.family == "multitask"),
        *([best_of(index, merges)] if merges else []),
        "uniform",
        "base",
        best_expert(index, tasks),
        *(name for name in ("classifier", "retrieval") if name in methods),
        *(name for name in _untold(methods, "router") if name != COMPARED),
        "oracle",
    ]
    return list(dict.fromkeys(names))


def _untold(methods: Mapping[str, Method], *families: str) -> list[str]:
    return [
        name for name, method in methods.items() if method.family in families and method.told == "nothing"
    ]


def _comparison(index: ResultIndex, methods: Mapping[str, Method], rival: str) -> str:
    difference = index.get(COMPARED, MACRO, f"difference:{rival}")
    return _say(methods, rival, difference)


def _say(methods: Mapping[str, Method], rival: str, difference: Result) -> str:
    title, name = methods[COMPARED].title, _in_a_sentence(methods[rival])
    points = with_interval(difference, signed=True)
    word = verdict(difference)
    if word == "no difference shown":
        return f"No difference shown between {title} and {name}: {points} points."
    return f"{title} is {word} than {name}: {points} points."


def _in_a_sentence(method: Method) -> str:
    """Its title with an article, in small letters unless it is a name."""
    title = shown_title(method)
    if method.family == "router":
        return title
    return f"the {title[0].lower()}{title[1:]}" if title.split()[0][1:].islower() else f"the {title}"


def _in_protocol(index: ResultIndex, methods: Mapping[str, Method], protocol: str) -> str:
    """How the compared method does in another protocol, and against the strongest there."""
    asked = [
        name
        for name in _untold(methods, "merge", "multitask", "selector", "router")
        if name != COMPARED and index.find(name, MACRO, protocol=protocol) is not None
    ]
    best = best_of(index, asked, protocol)
    difference = index.get(COMPARED, MACRO, f"difference:{best}", protocol=protocol)
    score, other = (index.get(name, MACRO, protocol=protocol) for name in (COMPARED, best))
    return (
        f"{PROTOCOLS[protocol].title}: {methods[COMPARED].title} scores {with_interval(score)}, the best "
        f"other method that is told nothing {with_interval(other)}. {_say(methods, best, difference)}"
    )


def shown_title(method: Method) -> str:
    """A method's name in tables, where the only single expert is the best one."""
    if method.name.startswith(EXPERT_PREFIX):
        return f"Best single expert ({method.name.removeprefix(EXPERT_PREFIX)})"
    return method.title
