"""What the notebook on federated training shows: plots of divisions, noise and attacks."""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float64

from ...experts.federated.accounting import PrivacyPlan
from ...experts.federated.partition import Parts
from ..plots import layout

COLOURS = ("#0f766e", "#b45309", "#7c3aed", "#be123c", "#1d4ed8")


def division_figure(parts: Parts, tasks: Mapping[str, str]) -> go.Figure:
    """Records of each bank, by task.

    Args:
        parts: Bank -> its records.
        tasks: Context of a record -> its task.
    """
    counted = {bank: Counter(tasks[example.context] for example in part) for bank, part in parts.items()}
    figure = go.Figure()
    for colour, task in zip(COLOURS, sorted(set(tasks.values())), strict=False):
        heights = [counted[bank][task] for bank in parts]
        figure.add_trace(go.Bar(x=list(parts), y=heights, name=task, marker={"color": colour}))
    figure.update_layout(**layout(320), barmode="stack")
    figure.update_yaxes(title="records")
    return figure


def noise_figure(plans: Mapping[str, Sequence[PrivacyPlan]]) -> go.Figure:
    """Noise of the mean gradient over epsilon, for banks of several sizes.

    Args:
        plans: Title of a bank -> its plans; the batch is what sampling rate and records make it.
    """
    figure = go.Figure()
    for colour, (title, same) in zip(COLOURS, plans.items(), strict=False):
        x, y = [plan.epsilon for plan in same], [plan.noise_multiplier for plan in same]
        figure.add_trace(go.Scatter(x=x, y=y, name=title, mode="lines+markers", line={"color": colour}))
    figure.update_layout(**layout(340))
    shown = sorted({plan.epsilon for same in plans.values() for plan in same})
    # On a logarithmic axis plotly writes every digit between two powers of ten.
    figure.update_xaxes(title="epsilon", type="log", tickvals=shown, ticktext=[f"{one:g}" for one in shown])
    figure.update_yaxes(title="noise / clipping norm", rangemode="tozero")
    return figure


def gain_figure(members: Float64[np.ndarray, " member"], others: Float64[np.ndarray, " other"]) -> go.Figure:
    """How much better than the base an expert does on its training records and on others."""
    figure = go.Figure()
    for colour, (title, gains) in zip(COLOURS, (("members", members), ("others", others)), strict=False):
        figure.add_trace(
            go.Histogram(x=gains, name=title, opacity=0.6, marker={"color": colour}, histnorm="probability")
        )
    figure.update_layout(**layout(320), barmode="overlay")
    figure.update_xaxes(title="loss of the base minus loss of the expert")
    figure.update_yaxes(title="share of records")
    return figure
