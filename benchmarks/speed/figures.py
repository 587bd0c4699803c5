"""The plots of the speed report, as plotly figures made from plain numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from ..plots import GRID, INK, interval_lines, layout
from .measurements import Spread

CEILING_COLOUR = "#dc2626"
_BAR, _GROUPED_BAR = 34, 22


@dataclass(frozen=True)
class Bar:
    """One row of a bar chart.

    Attributes:
        label: Name of the row.
        number: Length of the bar, and its range.
        colour: Of the bar.
        ceiling: What it cannot exceed, if known.
    """

    label: str
    number: Spread
    colour: str
    ceiling: float | None = None

    def free_place(self, width: float | int) -> float | int:
        """Where a text of that width can stand: behind the range, or behind a ceiling that it would hit."""
        high = self.number.high
        return self.ceiling if self.ceiling is not None and high < self.ceiling < high + width else high


def bar_chart(bars: Sequence[Bar], *, x_title: str, form: str = ".2f", one: bool = False) -> go.Figure:
    """One horizontal bar a row, its range as a line, its ceiling as a red tick; the first row is at the top.

    Args:
        bars: The rows.
        x_title: What is on the axis.
        form: How numbers are written.
        one: Whether to draw a line at 1, where a ratio is even.
    """
    labels = [bar.label for bar in bars]
    figure = go.Figure(
        go.Bar(
            x=[bar.number.value for bar in bars],
            y=labels,
            orientation="h",
            marker={"color": [bar.colour for bar in bars]},
            error_x=_range([bar.number for bar in bars]),
            customdata=[[f"{bar.number.low:{form}}", f"{bar.number.high:{form}}"] for bar in bars],
            hovertemplate=(
                f"%{{y}}: <b>%{{x:{form}}}</b>, %{{customdata[0]}} to %{{customdata[1]}}<extra></extra>"
            ),
            showlegend=False,
        )
    )
    furthest = max(max(bar.number.high, bar.ceiling or 0) for bar in bars)
    figure.add_trace(_numbers(bars, furthest, form))
    if any(bar.ceiling is not None for bar in bars):
        figure.add_trace(_ceilings(bars))
    if one:
        figure.add_vline(x=1, line={"color": INK, "width": 1, "dash": "dot"})
    figure.update_layout(
        **_layout(len(bars) * _BAR), bargap=0.32, legend={"orientation": "h", "y": 1.02, "yanchor": "bottom"}
    )
    figure.update_xaxes(range=[0, 1.14 * furthest], title=x_title, gridcolor=GRID, zeroline=False)
    figure.update_yaxes(autorange="reversed", showgrid=False, ticksuffix="  ", type="category")
    return figure


def grouped_bars(
    groups: Mapping[str, Sequence[Bar]], colours: Sequence[str], *, x_title: str, form: str = ".2f"
) -> go.Figure:
    """Bars of several kinds side by side in every row.

    Args:
        groups: By the kind's name its bars; the rows are the labels of all kinds together.
        colours: One for each kind.
        x_title: What is on the axis.
        form: How numbers are written.
    """
    figure = go.Figure()
    rows = list(dict.fromkeys(bar.label for bars in groups.values() for bar in bars))
    for (name, bars), colour in zip(groups.items(), colours, strict=False):
        figure.add_trace(
            go.Bar(
                x=[bar.number.value for bar in bars],
                y=[bar.label for bar in bars],
                name=name,
                orientation="h",
                marker={"color": colour},
                error_x=_range([bar.number for bar in bars]),
                text=[f"{bar.number.value:{form}}" for bar in bars],
                textposition="inside",
                insidetextanchor="start",
                textangle=0,
                textfont={"size": 12},
                constraintext="none",
                customdata=[[f"{bar.number.low:{form}}", f"{bar.number.high:{form}}"] for bar in bars],
                hovertemplate=f"%{{y}}: <b>%{{x:{form}}}</b>, %{{customdata[0]}} to %{{customdata[1]}}",
            )
        )
    figure.update_layout(
        **_layout(len(rows) * (14 + _GROUPED_BAR * len(groups))),
        barmode="group",
        bargap=0.25,
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "traceorder": "normal"},
    )
    figure.update_xaxes(title=x_title, gridcolor=GRID, rangemode="tozero")
    figure.update_yaxes(
        autorange="reversed",
        showgrid=False,
        ticksuffix="  ",
        type="category",
        categoryorder="array",
        categoryarray=rows,
    )
    return figure


def line_chart(
    lines: Mapping[str, Mapping[int, Spread]], colours: Mapping[str, str], *, x_title: str, y_title: str
) -> go.Figure:
    """A line over doubling numbers, with the range of every point.

    Args:
        lines: By name of the line its points, by number.
        colours: By name of the line.
        x_title: What grows.
        y_title: What is compared.
    """
    figure = go.Figure()
    for name, points in lines.items():
        spreads = list(points.values())
        figure.add_trace(
            go.Scatter(
                x=list(points),
                y=[one.value for one in spreads],
                error_y=_range(spreads),
                name=name,
                mode="lines+markers",
                line={"color": colours[name], "width": 2.5},
                marker={"size": 8},
                hovertemplate=f"{x_title} %{{x}}: <b>%{{y:.2f}}</b>",
            )
        )
    ticks = sorted({number for points in lines.values() for number in points})
    figure.update_layout(**_layout(320), legend={"orientation": "h", "y": 1.02, "yanchor": "bottom"})
    figure.update_xaxes(
        type="log", tickvals=ticks, ticktext=list(map(str, ticks)), title=x_title, gridcolor=GRID
    )
    figure.update_yaxes(title=y_title, rangemode="tozero", gridcolor=GRID)
    return figure


def stacked_bars(
    rows: Mapping[str, Mapping[str, float]], colours: Mapping[str, str], *, x_title: str
) -> go.Figure:
    """Rows whose bars are sums of named parts."""
    figure = go.Figure(
        [
            go.Bar(
                x=[parts[kind] for parts in rows.values()],
                y=list(rows),
                name=kind,
                orientation="h",
                marker={"color": colour},
                hovertemplate="%{y}: <b>%{x:.3g}</b>",
            )
            for kind, colour in colours.items()
        ]
    )
    figure.update_layout(
        **_layout(len(rows) * _BAR),
        barmode="stack",
        bargap=0.32,
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "traceorder": "normal"},
    )
    figure.update_xaxes(title=x_title, gridcolor=GRID)
    figure.update_yaxes(autorange="reversed", showgrid=False, ticksuffix="  ", type="category")
    return figure


def _numbers(bars: Sequence[Bar], furthest: float, form: str) -> go.Scatter:
    return go.Scatter(
        x=[bar.free_place(0.06 * furthest) + 0.012 * furthest for bar in bars],
        y=[bar.label for bar in bars],
        mode="text",
        text=[f"<b>{bar.number.value:{form}}</b>" for bar in bars],
        textposition="middle right",
        textfont={"size": 13, "color": INK},
        hoverinfo="skip",
        showlegend=False,
    )


def _ceilings(bars: Sequence[Bar]) -> go.Scatter:
    known = [bar for bar in bars if bar.ceiling is not None]
    return go.Scatter(
        x=[bar.ceiling for bar in known],
        y=[bar.label for bar in known],
        mode="markers",
        name="ceiling, from the bytes that are read",
        marker={"symbol": "line-ns", "size": 22, "line": {"width": 3, "color": CEILING_COLOUR}},
        hovertemplate="%{y}: ceiling <b>%{x:.2f}</b><extra></extra>",
    )


def _range(numbers: Sequence[Spread]) -> dict[str, Any]:
    return interval_lines(numbers, thickness=1.5, width=3, colour=INK)


def _layout(height: int) -> dict[str, Any]:
    return layout(130 + height, top=40)
