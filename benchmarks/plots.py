"""The report's plots, as plotly figures made from plain numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import plotly.graph_objects as go

FONT = "Inter, 'Segoe UI', 'Helvetica Neue', Arial, sans-serif"
INK, MUTED, GRID = "#1f2937", "#6b7280", "#e5e7eb"
SCORE_COLOURS = [[0.0, "#f8fafc"], [0.5, "#7cc4b8"], [1.0, "#0b5f58"]]
WEIGHT_COLOURS = [[0.0, "#fffaf3"], [0.5, "#f3b562"], [1.0, "#9a4a06"]]
_MARGINS, _PIXELS_PER_ROW = 110, 46


@runtime_checkable
class Ranged(Protocol):
    """A number with what it ranges over."""

    @property
    def value(self) -> float:
        """The number."""
        ...

    @property
    def low(self) -> float:
        """Lower end."""
        ...

    @property
    def high(self) -> float:
        """Upper end."""
        ...


@dataclass(frozen=True)
class Dot:
    """A number with its interval, as one dot of a plot."""

    label: str
    value: float
    low: float
    high: float
    colour: str


def dot_plot(dots: Sequence[Dot], *, x_title: str) -> go.Figure:
    """One row a method, a dot at its score and a line over its 95 % interval; the first dot is at the top."""
    figure = go.Figure()
    for dot in dots:
        figure.add_trace(
            go.Scatter(
                x=[dot.value],
                y=[dot.label],
                error_x=interval_lines([dot], thickness=4, width=0, colour=dot.colour),
                mode="markers+text",
                text=[f"<b>{dot.value:.1f}</b>"],
                textposition="top center",
                textfont={"size": 13, "color": dot.colour},
                marker={"size": 11, "color": dot.colour},
                hovertemplate=f"{dot.value:.1f}, interval {dot.low:.1f} to {dot.high:.1f}<extra></extra>",
            )
        )
    figure.update_layout(**layout(_MARGINS + _PIXELS_PER_ROW * len(dots)), showlegend=False)
    figure.update_xaxes(range=[-3, 103], title=x_title, gridcolor=GRID, zeroline=False)
    figure.update_yaxes(autorange="reversed", gridcolor=GRID, ticksuffix="  ")
    return figure


def task_plot(rows: Mapping[str, Sequence[Dot]], *, x_title: str) -> go.Figure:
    """One row a task, the methods' dots beside each other in it, each over its 95 % interval.

    Args:
        rows: For every task its dots; all tasks have the same methods in the same order, named by the labels.
        x_title: What is on the axis.
    """
    figure = go.Figure()
    tasks = list(rows)
    count = len(next(iter(rows.values())))
    for index in range(count):
        dots = [rows[task][index] for task in tasks]
        offset = 0.62 * ((index + 0.5) / count - 0.5)
        figure.add_trace(
            go.Scatter(
                x=[dot.value for dot in dots],
                y=[position + offset for position in range(len(tasks))],
                name=dots[0].label,
                error_x=interval_lines(dots, thickness=2, width=0, colour=dots[0].colour),
                mode="markers",
                marker={"size": 8, "color": dots[0].colour},
                customdata=[[task, dot.low, dot.high] for task, dot in zip(tasks, dots, strict=True)],
                hovertemplate=(
                    "%{customdata[0]}: %{x:.1f}, 95 % interval %{customdata[1]:.1f} to %{customdata[2]:.1f}"
                ),
            )
        )
    figure.update_layout(
        **layout(_MARGINS + (18 + 12 * count) * len(tasks)),
        legend={"orientation": "h", "y": 1.0, "yanchor": "bottom", "x": 0, "font": {"size": 13}},
    )
    figure.update_xaxes(range=[-3, 103], title=x_title, gridcolor=GRID, zeroline=False)
    figure.update_yaxes(
        tickvals=list(range(len(tasks))),
        ticktext=tasks,
        range=[len(tasks) - 0.5, -0.5],
        showgrid=False,
        zeroline=False,
        ticksuffix="  ",
    )
    for border in range(1, len(tasks)):
        figure.add_hline(y=border - 0.5, line={"color": GRID, "width": 1})
    return figure


def frontier_plot(dots: Sequence[Dot], costs: Sequence[float], *, x_title: str, y_title: str) -> go.Figure:
    """Quality against cost: one dot a method, named, the cost on a logarithmic axis.

    A line joins the methods that nothing cheaper equals.

    Args:
        dots: Quality of each method, with its interval.
        costs: What each costs, above 0.
        x_title: What the cost is.
        y_title: What the quality is.
    """
    figure = go.Figure()
    best, steps = float("-inf"), []
    for cost, dot in sorted(zip(costs, dots, strict=True), key=lambda one: (one[0], -one[1].value)):
        if dot.value > best:
            best = dot.value
            steps.append((cost, dot.value))
    figure.add_trace(
        go.Scatter(
            x=[cost for cost, _ in steps],
            y=[value for _, value in steps],
            mode="lines",
            line={"color": GRID, "width": 3, "shape": "hv"},
            hoverinfo="skip",
        )
    )
    for cost, dot in zip(costs, dots, strict=True):
        figure.add_trace(
            go.Scatter(
                x=[cost],
                y=[dot.value],
                error_y=interval_lines([dot], thickness=2, width=0, colour=dot.colour),
                mode="markers+text",
                text=[dot.label],
                textposition="middle right",
                textfont={"size": 11, "color": dot.colour},
                marker={"size": 10, "color": dot.colour},
                hovertemplate=f"{dot.label}: {dot.value:.1f} at %{{x:,.4g}}<extra></extra>",
            )
        )
    figure.update_layout(**layout(560), showlegend=False)
    figure.update_xaxes(type="log", title=x_title, gridcolor=GRID)
    figure.update_yaxes(range=[-3, 108], title=y_title, gridcolor=GRID, zeroline=False)
    return figure


def heat_map(
    values: Sequence[Sequence[float]],
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    row_title: str,
    column_title: str,
    highest: float | int,
    digits: int,
    colours: Sequence[Sequence[object]],
) -> go.Figure:
    """A table of numbers as coloured squares, with each number written in its square.

    Args:
        values: Numbers by row and column, from 0 to `highest`.
        rows: Names of the rows, the first at the top.
        columns: Names of the columns.
        row_title: What a row is.
        column_title: What a column is.
        highest: Number that gets the darkest colour.
        digits: Decimals written.
        colours: Plotly colour scale.
    """
    figure = go.Figure(
        go.Heatmap(
            z=values,
            x=list(columns),
            y=list(rows),
            zmin=0,
            zmax=highest,
            colorscale=colours,
            xgap=2,
            ygap=2,
            texttemplate=f"%{{z:.{digits}f}}",
            textfont={"size": 13},
            hovertemplate=(
                f"{row_title} %{{y}}<br>{column_title} %{{x}}<br><b>%{{z:.{digits}f}}</b><extra></extra>"
            ),
            showscale=False,
        )
    )
    figure.update_layout(**layout(_MARGINS + 40 * len(rows)))
    figure.update_layout(margin={"l": 10, "r": 60, "t": 110, "b": 10})
    figure.update_xaxes(side="top", title=column_title, tickangle=-35, showgrid=False)
    figure.update_yaxes(autorange="reversed", title=row_title, showgrid=False, ticksuffix="  ")
    return figure


def interval_lines(
    numbers: Sequence[Ranged], *, thickness: float | int, width: int, colour: str
) -> dict[str, Any]:
    """Lines from `low` to `high` of each number, as plotly's `error_x`."""
    return {
        "type": "data",
        "symmetric": False,
        "array": [one.high - one.value for one in numbers],
        "arrayminus": [one.value - one.low for one in numbers],
        "thickness": thickness,
        "width": width,
        "color": colour,
    }


def layout(height: int, *, top: int = 30) -> dict[str, Any]:
    """What all plots look like.

    Args:
        height: Of the whole plot, in pixels.
        top: Pixels above the axes.
    """
    return {
        "template": "plotly_white",
        "font": {"family": FONT, "size": 14, "color": INK},
        "height": height,
        "margin": {"l": 10, "r": 20, "t": top, "b": 60},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
    }
