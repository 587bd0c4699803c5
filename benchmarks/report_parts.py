"""The report's tables and figures."""

from __future__ import annotations

import plotly.graph_objects as go

from ..experts.tasks import get_task
from . import tables
from .findings import rivals
from .layout import EXPERT_PREFIX
from .methods import XLORA
from .methods.multitasks import MULTITASK
from .plots import SCORE_COLOURS, WEIGHT_COLOURS, dot_plot, frontier_plot, heat_map, task_plot
from .published import published_table
from .report_data import Findings
from .results import IN_DISTRIBUTION
from .statistics import MACRO
from .tables import Table

REAL_SUITES = ("real", "finlora-15", "finlora-fixed")
"""Suites of published questions, beside whose scores published ones may stand."""
MACRO_AXIS = "macro score: mean over the tasks, 0 to 100 (line: 95 % interval)"


def make_tables(findings: Findings) -> dict[str, Table]:
    """All tables of the first protocol and of the run as a whole, by name."""
    index, methods, shown, tasks = findings.index, findings.methods, findings.shown, findings.tasks
    published = published_table(index, tasks) if findings.config["suite"] in REAL_SUITES else None
    foreign = tables.foreign_table(index, methods, shown)
    optional = {"published": published, "foreign": foreign}
    return {name: table for name, table in optional.items() if table is not None} | {
        "headline": tables.headline_table(index, methods, shown),
        "tasks": tables.task_table(index, methods, shown, tasks),
        "differences": tables.difference_table(index, methods, rivals(index, methods, tasks), tasks),
        "seeds": tables.seed_table(index, methods, tasks),
        "costs": tables.cost_table(index, methods, shown),
        "methods": tables.method_table(methods, shown),
        "data": tables.data_table(
            findings.config["data"], {task: one.too_long for task, one in findings.summaries.items()}
        ),
        "origin": _origin(findings),
    }


def protocol_tables(findings: Findings) -> dict[str, tuple[Table, Table]]:
    """For each protocol but the first: all methods, and the strongest of each kind task by task."""
    index, methods = findings.index, findings.methods
    return {
        name: (
            tables.headline_table(index, methods, findings.shown, name),
            tables.task_table(index, methods, findings.few, findings.tasks, name),
        )
        for name in findings.protocols
        if name != IN_DISTRIBUTION
    }


def protocol_figures(findings: Findings) -> dict[str, go.Figure]:
    """For each protocol but the first, the strongest methods of each kind."""
    return {
        name: dot_plot(findings.dots(MACRO, findings.few, name), x_title=MACRO_AXIS)
        for name in findings.protocols
        if name != IN_DISTRIBUTION
    }


def _frontier(findings: Findings) -> go.Figure | None:
    """Quality against what the training took, of the methods that train anything."""
    dots, costs = [], []
    for name in findings.shown:
        cost = findings.index.find(name, MACRO, "training_seconds")
        if cost is not None and cost.value > 0:
            dots += findings.dots(MACRO, [name])
            costs.append(cost.value / 60)
    if not dots:
        return None
    return frontier_plot(
        dots,
        costs,
        x_title="minutes of training on one core, experts included",
        y_title="macro score",
    )


def _origin(findings: Findings) -> Table:
    first = next(iter(findings.summaries.values()))
    score = findings.index.get("xlora", MACRO)
    rows = [
        ("Base", f"{first.base}, revision {first.base_revision}"),
        ("Quantization", first.quantization),
        ("Commit", score.commit),
        (
            "Seed, router seeds",
            f"{findings.config['seed']}; {', '.join(map(str, findings.config['router_seeds']))}",
        ),
        ("Configuration hash", score.config_hash),
    ]
    for part, settings in findings.config["budget"].items():
        if isinstance(settings, dict):
            rows.append(
                (f"Settings: {part}", ", ".join(f"{key} {_plain(value)}" for key, value in settings.items()))
            )
        else:
            rows.append((f"Settings: {part}", _plain(settings)))
    return Table(("What", "Value"), tuple(rows), prose=True)


def _plain(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def make_figures(findings: Findings) -> dict[str, go.Figure]:
    """All figures of the first protocol and of the run as a whole, by name."""
    tasks, index = findings.tasks, findings.index
    frontier = _frontier(findings)
    mixed = [name for name in ("base", "uniform", MULTITASK, XLORA) if name in findings.methods]
    matrix_rows = [*(f"{EXPERT_PREFIX}{task}" for task in tasks), *mixed]
    figures = {
        "headline": dot_plot(findings.dots(MACRO, findings.shown), x_title=MACRO_AXIS),
        "tasks": task_plot(
            {get_task(task).title: findings.dots(task, findings.few) for task in tasks},
            x_title="score, 0 to 100 (line: 95 % interval)",
        ),
        "transfer": heat_map(
            [[index.get(name, task).value for task in tasks] for name in matrix_rows],
            rows=[
                name.removeprefix(EXPERT_PREFIX)
                if name.startswith(EXPERT_PREFIX)
                else findings.methods[name].title
                for name in matrix_rows
            ],
            columns=tasks,
            row_title="answered by",
            column_title="asked about",
            highest=100,
            digits=0,
            colours=SCORE_COLOURS,
        ),
    }
    if frontier is not None:
        figures["frontier"] = frontier
    for tokens in ("prompt", "answer"):
        figures[f"routing_{tokens}"] = heat_map(
            findings.mean_scalings(tokens),
            rows=tasks,
            columns=findings.routing["experts"],
            row_title="task asked",
            column_title="expert used",
            highest=1,
            digits=2,
            colours=WEIGHT_COLOURS,
        )
    return figures
