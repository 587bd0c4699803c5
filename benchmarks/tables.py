"""The report's tables, as rows of text that HTML and Markdown are made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..experts.tasks import get_task
from .findings import shown_title, verdict, with_interval
from .foreign_text import FOREIGN
from .methods import Method
from .results import IN_DISTRIBUTION, Result, ResultIndex
from .scoring import COMPARED
from .statistics import CATEGORIES, MACRO

MISSING = "-"
ALPHA = 0.05


@dataclass(frozen=True)
class Table:
    """A table of text.

    Attributes:
        headers: Heads of the columns.
        rows: Cells; the first of a row names it.
        strong: Name of the row to bring out, if any.
        prose: Whether the cells are words rather than numbers.
    """

    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    strong: str = ""
    prose: bool = False

    def markdown(self) -> str:
        """The table in GitHub's Markdown, numbers to the right."""
        side = ":--" if self.prose else "--:"
        lines = [self.headers, (":--", *(side for _ in self.headers[1:])), *self.rows]
        return "\n".join(
            "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines
        )


def headline_table(
    index: ResultIndex,
    methods: Mapping[str, Method],
    shown: Sequence[str],
    protocol: str = IN_DISTRIBUTION,
) -> Table:
    """Macro score of every method, and how X-LoRA differs from it.

    Args:
        index: The run's results.
        methods: The run's methods.
        shown: Those to show; what was not asked in the protocol is left out.
        protocol: How they were asked.
    """
    rows = []
    for name in shown:
        score = index.find(name, MACRO, protocol=protocol)
        if score is None:
            continue
        difference = index.find(COMPARED, MACRO, f"difference:{name}", protocol=protocol)
        by_category = index.find(name, CATEGORIES, protocol=protocol)
        normalized = index.find(name, MACRO, "normalized", protocol=protocol)
        rows.append(
            (
                shown_title(methods[name]),
                methods[name].told,
                with_interval(score),
                with_interval(by_category) if by_category else MISSING,
                f"{normalized.value:.0f} %" if normalized else MISSING,
                with_interval(difference, signed=True) if difference else MISSING,
                _p_value(difference),
                verdict(difference) if difference else MISSING,
            )
        )
    compared = methods[COMPARED].title
    headers = (
        "Method",
        "Told",
        "Macro score",
        "Mean over categories",
        "Way from base to oracle",
        f"{compared} minus it",
        "p (Holm)",
        f"{compared} is",
    )
    return Table(headers, tuple(rows), compared)


def task_table(
    index: ResultIndex,
    methods: Mapping[str, Method],
    shown: Sequence[str],
    tasks: Sequence[str],
    protocol: str = IN_DISTRIBUTION,
) -> Table:
    """Score of every method (a row each) on every task that was asked in a protocol."""
    asked = [task for task in tasks if index.find(COMPARED, task, protocol=protocol)]
    rows = [
        (
            shown_title(methods[name]),
            *(with_interval(index.get(name, task, protocol=protocol)) for task in (*asked, MACRO)),
        )
        for name in shown
        if index.find(name, MACRO, protocol=protocol)
    ]
    headers = ("Method", *(get_task(task).title for task in asked), "Macro mean")
    return Table(headers, tuple(rows), methods[COMPARED].title)


def difference_table(
    index: ResultIndex, methods: Mapping[str, Method], rivals: Sequence[str], tasks: Sequence[str]
) -> Table:
    """X-LoRA minus each rival on every task; a star where p stays below 0.05 after Holm's correction."""
    rows = []
    for rival in rivals:
        cells = []
        for task in (*tasks, MACRO):
            found = index.get(COMPARED, task, f"difference:{rival}")
            sure = found.p_adjusted is not None and found.p_adjusted < ALPHA
            cells.append(with_interval(found, signed=True) + (" *" if sure else ""))
        detectable = index.find(COMPARED, MACRO, f"detectable:{rival}")
        rows.append(
            (
                shown_title(methods[rival]),
                *cells,
                MISSING if detectable is None else f"{detectable.value:.1f}",
            )
        )
    headers = (
        f"{methods[COMPARED].title} minus",
        *(get_task(task).title for task in tasks),
        "Macro mean",
        "Detectable",
    )
    return Table(headers, tuple(rows))


def foreign_table(index: ResultIndex, methods: Mapping[str, Method], shown: Sequence[str]) -> Table | None:
    """Loss on text that belongs to no task, and what a null expert takes; None if nobody read any."""
    rows = []
    for name in shown:
        loss = index.find(name, FOREIGN, "loss")
        if loss is None:
            continue
        difference = index.find(name, FOREIGN, "loss_difference:base")
        shares = [index.find(name, FOREIGN, key) for key in ("abstention", "abstention_on_tasks")]
        rows.append(
            (
                shown_title(methods[name]),
                f"{loss.value:.3f}",
                _three_digits(difference),
                *(MISSING if share is None else f"{share.value:.0f} %" for share in shares),
            )
        )
    headers = (
        "Method",
        "Loss, nats a token",
        "Minus the base",
        "Share to no expert",
        "The same on the tasks",
    )
    return Table(headers, tuple(rows), methods[COMPARED].title) if rows else None


def _three_digits(result: Result | None) -> str:
    if result is None or result.low is None or result.high is None:
        return MISSING
    return f"{result.value:+.3f} ({result.low:+.3f} to {result.high:+.3f})"


def seed_table(index: ResultIndex, methods: Mapping[str, Method], tasks: Sequence[str]) -> Table:
    """Score of X-LoRA on every task, one column a router seed."""
    seeds = [seed for seed in methods[COMPARED].seeds if index.find(COMPARED, MACRO, seed=seed)]
    rows = [
        (title, *(f"{index.get(COMPARED, task, seed=seed).value:.1f}" for seed in seeds))
        for task, title in (*((task, get_task(task).title) for task in tasks), (MACRO, "Macro mean"))
    ]
    return Table(("Task", *(f"seed {seed}" for seed in seeds)), tuple(rows), "Macro mean")


def cost_table(index: ResultIndex, methods: Mapping[str, Method], shown: Sequence[str]) -> Table:
    """What every method takes to train, to keep and to run."""
    rows = []
    for name in shown:
        value = {
            metric: None if (found := index.find(name, MACRO, metric)) is None else found.value
            for metric in (
                "trainable_parameters",
                "training_seconds",
                "training_peak_bytes",
                "resident_parameters",
                "tokens_per_second",
                "answer_peak_bytes",
            )
        }
        rows.append(
            (
                shown_title(methods[name]),
                _millions(value["trainable_parameters"]),
                _duration(value["training_seconds"]),
                _gibibytes(value["training_peak_bytes"]),
                _millions(value["resident_parameters"]),
                MISSING if value["tokens_per_second"] is None else f"{value['tokens_per_second']:,.0f}",
                _gibibytes(value["answer_peak_bytes"]),
            )
        )
    headers = (
        "Method",
        "Trained parameters",
        "Training time",
        "Peak memory, training",
        "Parameters in memory",
        "Answer tokens a second",
        "Peak memory, answering",
    )
    return Table(headers, tuple(rows), methods[COMPARED].title)


def method_table(methods: Mapping[str, Method], shown: Sequence[str]) -> Table:
    """What every method is."""
    rows = tuple((shown_title(methods[name]), methods[name].explanation) for name in shown)
    return Table(("Method", "What it is"), rows, prose=True)


def data_table(data: Mapping[str, Any], too_long: Mapping[str, int]) -> Table:
    """How many examples every task has, and where they come from.

    Args:
        data: For every task its version and, by split, number and hash of its examples.
        too_long: For every task the test prompts that did not fit the base and score 0.
    """
    rows = []
    for name, entry in data.items():
        task = get_task(name)
        rows.append(
            (
                task.title,
                name,
                str(entry["train"]["n"]),
                str(entry["test"]["n"]),
                str(too_long[name]),
                entry["test"]["sha256"][:12],
                task.source,
                task.licence,
            )
        )
    headers = ("Task", "Name", "Training", "Test", "Too long", "Hash of test", "Source", "Licence")
    return Table(headers, tuple(rows), prose=True)


def _p_value(difference: Result | None) -> str:
    if difference is None or difference.p_adjusted is None:
        return MISSING
    return "< 0.001" if difference.p_adjusted < 0.001 else f"{difference.p_adjusted:.3f}"


def _millions(count: float | None) -> str:
    if count is None:
        return MISSING
    return "0" if count == 0 else f"{count / 1e6:,.2f} M" if count < 1e9 else f"{count / 1e9:,.2f} B"


def _gibibytes(count: float | None) -> str:
    return MISSING if count is None else f"{count / 2**30:.2f} GiB"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return MISSING
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
