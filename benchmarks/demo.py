"""The demonstration: the whole benchmark on the embedded suite, for two CPU cores and twenty minutes."""

from __future__ import annotations

from pathlib import Path

from .cross_task import benchmark
from .findings import headline
from .layout import RunLayout
from .report_data import Findings


def demo(*, runs: Path = Path("runs"), workers: int | None = None) -> RunLayout:
    """Run the benchmark on the embedded suite into `runs/demo`, or go on with it, and print what it found.

    Args:
        runs: Folder of all runs.
        workers: Number of processes; by default one a core.

    Returns:
        The run's folder; `mixture` in it is the trained mixture.
    """
    layout = benchmark("embedded", name="demo", runs=runs, workers=workers)
    print(describe(layout))
    return layout


def describe(layout: RunLayout) -> str:
    """The findings of a finished run as text for the terminal, the report's path at its end."""
    found = Findings.read(layout)
    lines = headline(found.index, found.methods, found.tasks)
    return "\n".join(
        [
            "",
            lines[0],
            *(f"  - {line}" for line in lines[1:]),
            "",
            f"Mixture: {layout.mixture}",
            f"Report:  {layout.report_html}",
        ]
    )
