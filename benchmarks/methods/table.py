"""The table of methods, in the order of reports: from the base up to the oracle."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from . import gates, merges, multitasks, references, routers, selectors
from .method import XLORA, Method

Make = Callable[[tuple[str, ...], Sequence[int]], Method]


def _selector(name: str) -> Make:
    return lambda tasks, seeds: selectors.selector(name, tasks, seeds)


def _merge(name: str) -> Make:
    return lambda tasks, seeds: merges.merge(name)


def _arrow(name: str) -> Make:
    return lambda tasks, seeds: gates.arrow(name, tasks)


def _multitask(name: str) -> Make:
    return lambda tasks, seeds: multitasks.multitask(name)


FURTHER: Mapping[str, Make] = {
    "few_shot": lambda tasks, seeds: references.few_shot(),
    **{name: _selector(name) for name in selectors.SELECTORS},
    **{name: _merge(name) for name in merges.MERGES},
    merges.LORAHUB: lambda tasks, seeds: merges.lorahub(),
    **{name: _multitask(name) for name in multitasks.PLANS if name != multitasks.MULTITASK},
    multitasks.CATEGORY: lambda tasks, seeds: multitasks.one_a_category(tasks),
    **{name: _arrow(name) for name in gates.ARROWS},
    gates.PHATGOOSE: lambda tasks, seeds: gates.phatgoose(tasks),
    routers.RANDOM: routers.random_router,
    routers.ADDED: lambda tasks, seeds: routers.added(seeds),
}
"""Methods beside those that every benchmark compares, by name."""


def make_methods(
    tasks: Sequence[str],
    router_seeds: Sequence[int],
    with_routers: Collection[str] = (XLORA,),
    further: Collection[str] = (),
    multitask: bool = True,
) -> dict[str, Method]:
    """All methods on a set of tasks, by name, in the order of reports.

    Args:
        tasks: The tasks, each with an expert.
        router_seeds: Seeds of every method with a router or random draws.
        with_routers: Which methods of `ROUTERS` there are.
        further: Which methods of `FURTHER` there are.
        multitask: Whether the multi-task adapter is there.
    """
    known = tuple(tasks)
    made = {name: make(known, router_seeds) for name, make in FURTHER.items() if name in further}
    by_family = {
        family: [method for method in made.values() if method.family == family]
        for family in ("reference", "selector", "merge", "multitask", "router")
    }
    methods = (
        references.base(),
        *by_family["reference"],
        *(references.expert(task) for task in tasks),
        merges.uniform(known),
        *by_family["merge"],
        *([multitasks.multitask(multitasks.MULTITASK)] if multitask else []),
        *by_family["multitask"],
        *by_family["selector"],
        *by_family["router"],
        *(routers.router(name, router_seeds) for name in routers.ROUTERS if name in with_routers),
        references.oracle(tasks),
    )
    return {method.name: method for method in methods}
