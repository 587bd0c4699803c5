"""Plots of geometry and routing, as plotly figures made from plain numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import cycle

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float
from plotly.colors import qualitative
from plotly.subplots import make_subplots

from ..plots import GRID, MUTED, WEIGHT_COLOURS, heat_map, layout
from .geometry import Geometry
from .permutation import MantelTest
from .routing_stats import TaskRouting
from .similarity import MEASURES

_SIGNED_COLOURS = [[0.0, "#9f1239"], [0.5, "#f8fafc"], [1.0, "#0b5f58"]]
"""For numbers from -1 to 1."""


def similarity_and_transfer(geometry: Geometry, measure: str) -> go.Figure:
    """Two heat maps side by side: how alike each pair of experts is, and how well it does each other's task.

    Args:
        geometry: What `study_geometry` found.
        measure: A key of `MEASURES`.
    """
    experts = list(geometry.similarity.experts)
    figure = make_subplots(
        cols=2,
        subplot_titles=(MEASURES[measure], "Transfer (own expert = 1, base = 0)"),
        horizontal_spacing=0.03,
        shared_yaxes=True,
    )
    values = geometry.similarity.overall[measure].copy()
    # The diagonal says nothing, and would take all colours for itself.
    np.fill_diagonal(values, np.nan)
    reach = float(np.nanmax(np.abs(values)))
    signed = measure == "cosine"
    span = (-reach, reach) if signed else (float(np.nanmin(values)), float(np.nanmax(values)))
    colours = _SIGNED_COLOURS if signed else WEIGHT_COLOURS
    for column, (matrix, (low, high), scale) in enumerate(
        ((values, span, colours), (geometry.transfer, (-1.0, 1.0), _SIGNED_COLOURS)), start=1
    ):
        figure.add_trace(_squares(matrix, experts, low, high, scale), row=1, col=column)
    figure.update_layout(**layout(150 + 34 * len(experts), top=60))
    figure.update_xaxes(tickangle=-35, showgrid=False)
    figure.update_yaxes(autorange="reversed", showgrid=False, ticksuffix="  ")
    return figure


def similarity_against_transfer(geometry: Geometry, measure: str) -> go.Figure:
    """A dot for every unordered pair of experts: how alike, and mean transfer of both directions.

    The title says what the permutation test of `geometry` found.
    """
    experts = geometry.similarity.experts
    similarity, transfer = geometry.similarity.overall[measure], geometry.transfer
    pairs = [
        (i, j)
        for i in range(len(experts))
        for j in range(i + 1, len(experts))
        if not math.isnan(transfer[i, j] + transfer[j, i])
    ]
    test = geometry.tests[measure]
    figure = go.Figure(
        go.Scatter(
            x=[similarity[pair] for pair in pairs],
            y=[(transfer[i, j] + transfer[j, i]) / 2 for i, j in pairs],
            mode="markers",
            marker={"size": 11, "color": "#0f766e", "opacity": 0.7, "line": {"width": 1, "color": "white"}},
            customdata=[(experts[i], experts[j], transfer[i, j], transfer[j, i]) for i, j in pairs],
            hovertemplate=(
                "<b>%{customdata[0]}</b> and <b>%{customdata[1]}</b><br>"
                + MEASURES[measure]
                + " %{x:.3f}<br>%{customdata[0]} on %{customdata[1]}: %{customdata[2]:.2f}"
                "<br>%{customdata[1]} on %{customdata[0]}: %{customdata[3]:.2f}<extra></extra>"
            ),
        )
    )
    chance = geometry.similarity.chance[measure]
    figure.add_vline(x=chance, line={"color": MUTED, "dash": "dot", "width": 1})
    figure.update_layout(
        **layout(420, top=70),
        title={
            "text": describe_test(MEASURES[measure], test, geometry.adjusted[measure]),
            "font": {"size": 15},
        },
    )
    figure.update_xaxes(
        title=f"{MEASURES[measure]} (dotted: unrelated updates)", gridcolor=GRID, zeroline=False
    )
    figure.update_yaxes(title="transfer, mean of both directions", gridcolor=GRID, zerolinecolor=MUTED)
    return figure


def describe_test(title: str, test: MantelTest, adjusted: float) -> str:
    """What a permutation test found, in one line."""
    found = "no correlation is defined"
    if not math.isnan(test.correlation):
        found = f"Spearman {test.correlation:+.2f}"
    kind = "all" if test.exact else "drawn"
    return (
        f"{title} and transfer: {found}, p = {test.p_value:.2g} (Holm {adjusted:.2g}), "
        f"{test.pairs} pairs of {test.experts} experts, {test.permutations:,} permutations ({kind})"
    )


def similarity_by_layer(geometry: Geometry, measure: str, expert: str) -> go.Figure:
    """How alike one expert is to each other one, layer by layer."""
    experts = geometry.similarity.experts
    row = experts.index(expert)
    values = geometry.similarity.by_layer[measure][:, row]
    lines = {other: values[:, index] for index, other in enumerate(experts) if other != expert}
    return layer_lines(lines, geometry.similarity.layers, y_title=f"{MEASURES[measure]} to {expert}")


def load_map(routing: Sequence[TaskRouting]) -> go.Figure:
    """Mean scaling of each expert on each task's answer tokens."""
    return heat_map(
        [one.mean_load for one in routing],
        rows=[one.task for one in routing],
        columns=list(routing[0].experts),
        row_title="task",
        column_title="expert",
        highest=1,
        digits=2,
        colours=WEIGHT_COLOURS,
    )


def agreement_by_layer(routing: Sequence[TaskRouting]) -> go.Figure:
    """Share of answer tokens whose largest scaling is the right expert's, layer by layer."""
    lines = {one.task: one.agreement.numpy() for one in routing if one.agreement is not None}
    figure = layer_lines(lines, routing[0].layers, y_title="share with the right expert on top")
    figure.update_yaxes(range=[-0.03, 1.03])
    return figure


def entropy_by_layer(routing: Sequence[TaskRouting]) -> go.Figure:
    """Mean entropy of the scalings, layer by layer, with the largest possible one."""
    lines = {one.task: one.entropy.numpy() for one in routing}
    figure = layer_lines(lines, routing[0].layers, y_title="entropy (nats)")
    most = math.log(len(routing[0].experts))
    figure.add_hline(
        y=most, line={"color": MUTED, "dash": "dot", "width": 1}, annotation_text="all experts alike"
    )
    figure.update_yaxes(range=[-0.05, 1.08 * most])
    return figure


def layer_lines(
    lines: Mapping[str, Float[np.ndarray, " layer"]], layers: Sequence[str], *, y_title: str
) -> go.Figure:
    """A line for each name over the adapted linear layers, in their order in the base."""
    figure = go.Figure()
    for (name, values), colour in zip(lines.items(), cycle(palette()), strict=False):
        figure.add_trace(
            go.Scatter(
                x=[short_layer(layer) for layer in layers],
                y=values,
                name=name,
                mode="lines+markers",
                line={"width": 1.5, "color": colour},
                marker={"size": 5},
                hovertemplate=f"{name}<br>%{{x}}: <b>%{{y:.3f}}</b><extra></extra>",
            )
        )
    figure.update_layout(**layout(420))
    figure.update_xaxes(tickangle=-60, gridcolor=GRID, tickfont={"size": 11})
    figure.update_yaxes(title=y_title, gridcolor=GRID, zeroline=False)
    return figure


def loss_curve(losses: Sequence[Mapping[str, float]]) -> go.Figure:
    """The loss of a training by step.

    Args:
        losses: Records with `step` and `loss`, as `expert.json` holds them.
    """
    figure = go.Figure(
        go.Scatter(
            x=[one["step"] for one in losses],
            y=[one["loss"] for one in losses],
            mode="lines+markers",
            line={"color": "#0f766e"},
            hovertemplate="step %{x}: loss %{y:.3f}<extra></extra>",
        )
    )
    figure.update_layout(**layout(300))
    figure.update_xaxes(title="step", gridcolor=GRID)
    figure.update_yaxes(title="loss of the answers", gridcolor=GRID, rangemode="tozero")
    return figure


def palette() -> list[str]:
    """Colours that are told apart, for experts and tasks, as `#rrggbb`."""
    return [*qualitative.D3, *qualitative.Dark24]


def short_layer(layer: str) -> str:
    """Block and last name of a layer: `model.layers.3.mlp.up_proj` becomes `3 up_proj`."""
    parts = layer.split(".")
    return " ".join([*(part for part in parts if part.isdigit()), parts[-1]])


def _squares(
    matrix: Float[np.ndarray, "row column"],
    names: Sequence[str],
    low: float,
    high: float,
    colours: Sequence[object],
) -> go.Heatmap:
    return go.Heatmap(
        z=matrix,
        x=names,
        y=names,
        zmin=low,
        zmax=high,
        colorscale=colours,
        xgap=2,
        ygap=2,
        showscale=False,
        texttemplate="%{z:.2f}",
        textfont={"size": 11},
        hoverongaps=False,
        hovertemplate="%{y}, %{x}: <b>%{z:.3f}</b><extra></extra>",
    )
