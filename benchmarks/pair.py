"""Any two methods of a finished run beside each other; the report compares all with X-LoRA alone."""

from __future__ import annotations

from ..experts.errors import FinLoraError
from .cells import read_cells
from .findings import with_interval
from .layout import RunLayout
from .protocols import PROTOCOLS
from .results import IN_DISTRIBUTION
from .run_config import read_config
from .scoring import make_bootstrap
from .statistics import CATEGORIES, MACRO, holm
from .tables import MISSING, Table


def compare_pair(layout: RunLayout, method: str, other: str, protocol: str = IN_DISTRIBUTION) -> Table:
    """Compare two methods task by task and on average, from the stored answers.

    Args:
        layout: A finished run.
        method: Name of a method.
        other: Name of the one to subtract from it.
        protocol: How both were asked.

    Returns:
        Scores and differences in points with the report's intervals, and p-values, those of tasks after Holm.

    Raises:
        FinLoraError: The run has no such protocol, or a method was not asked in it.
    """
    config = read_config(layout.config)
    asked = {one.name: config.compared_in(one) for one in config.protocols}
    if protocol not in asked:
        raise FinLoraError(f"{layout.folder} has no protocol {protocol!r}; it has {', '.join(asked)}.")
    for name in (method, other):
        if name not in asked[protocol]:
            raise FinLoraError(
                f"{name!r} was not asked in the protocol {protocol} of {layout.folder}; asked were "
                f"{', '.join(asked[protocol])}."
            )
    chosen = PROTOCOLS[protocol]
    methods = {name: config.methods[name] for name in dict.fromkeys((method, other))}
    seeds = config.expert_seeds_of(chosen)
    cells = read_cells(layout, methods, config.tasks, protocol=chosen, expert_seeds=seeds)
    bootstrap = make_bootstrap(cells, methods, seed=config.seed, resamples=config.resamples)
    adjusted = holm({task: bootstrap.p_value(method, other, task) for task in cells.tasks})
    rows = []
    for task in (*cells.tasks, MACRO, CATEGORIES):
        p_value = adjusted[task] if task in adjusted else bootstrap.p_value(method, other, task)
        rows.append(
            (
                task,
                with_interval(bootstrap.score(method, task)),
                with_interval(bootstrap.score(other, task)),
                with_interval(bootstrap.difference(method, other, task), signed=True),
                MISSING if method == other else f"{p_value:.3f}",
            )
        )
    return Table(("Task", method, other, f"{method} minus {other}", "p (tasks: Holm)"), tuple(rows), MACRO)
