"""A text in which every token has its strongest expert's colour and says its weights when pointed at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle

import plotly.graph_objects as go
import torch
from jaxtyping import Float
from torch import Tensor

from ..plots import INK, layout
from .figures import palette
from .read_scalings import TokenScalings

_LINE_CHARACTERS = 104
_CHARACTER_PIXELS, _LINE_PIXELS = 8.4, 24
_SHOWN_EXPERTS = 3


@dataclass(frozen=True)
class _Place:
    """Where a token stands: line and first character, and what is written there."""

    line: int
    start: int
    text: str


def token_map(read: TokenScalings, *, experts: Sequence[str], layers: Sequence[str]) -> go.Figure:
    """Draw a question with its answer, token by token.

    A token's colour is that of the expert with its largest mean scaling over layers, the stronger the larger
    it is; pointing at it shows its strongest experts in every block. Tokens that the answer follows from are
    framed: their scalings act on the answer.

    Args:
        read: Tokens and scalings of one question.
        experts: Names of the experts.
        layers: Names of the layers of the scalings, as `layer_names` gives them.
    """
    places = _lay_out(read.tokens)
    mean = read.scalings.mean(dim=1)
    strongest = mean.argmax(dim=-1).tolist()
    blocks = _mean_by_block(read.scalings, layers)
    figure = go.Figure()
    for index, (name, colour) in enumerate(zip(experts, cycle(palette()), strict=False)):
        tokens = [number for number, best in enumerate(strongest) if best == index]
        figure.add_trace(
            go.Bar(
                orientation="h",
                name=name,
                base=[places[number].start for number in tokens],
                x=[len(places[number].text) for number in tokens],
                y=[places[number].line for number in tokens],
                width=0.9,
                text=[_escape(places[number].text).replace(" ", "\u00a0") for number in tokens],
                textposition="inside",
                insidetextanchor="start",
                textangle=0,
                constraintext="none",
                textfont={"family": "monospace", "size": 14, "color": INK},
                marker={
                    "color": [_shade(colour, float(mean[number, index])) for number in tokens],
                    "line": {
                        "color": INK,
                        "width": [1.5 if read.predicts_answer[number] else 0.0 for number in tokens],
                    },
                },
                hovertext=[_hover(read.tokens[number], number, blocks, experts) for number in tokens],
                hovertemplate="%{hovertext}<extra></extra>",
                showlegend=False,
            )
        )
        if tokens:
            # The legend would show the shade of the first token.
            figure.add_trace(go.Bar(name=name, x=[None], y=[None], orientation="h", marker={"color": colour}))
    lines = places[-1].line + 1
    figure.update_layout(**layout(round(90 + _LINE_PIXELS * lines), top=60))
    figure.update_layout(
        barmode="overlay",
        width=round(_CHARACTER_PIXELS * _LINE_CHARACTERS) + 40,
        margin={"l": 10, "r": 10, "b": 10},
        legend={"orientation": "h", "y": 1.0, "yanchor": "bottom", "x": 0, "font": {"size": 13}},
        hoverlabel={"font": {"family": "monospace", "size": 12}, "align": "left"},
    )
    figure.update_xaxes(visible=False, range=[0, _LINE_CHARACTERS], fixedrange=True)
    figure.update_yaxes(visible=False, range=[lines - 0.5, -0.5], fixedrange=True)
    return figure


def _lay_out(tokens: Sequence[str]) -> list[_Place]:
    """Break tokens into lines; a line also ends where the text has a line break."""
    places, line, start = [], 0, 0
    for token in tokens:
        text = token.replace("\n", "⏎").replace("\t", " ") or "·"
        if start and start + len(text) > _LINE_CHARACTERS:
            line, start = line + 1, 0
        places.append(_Place(line, start, text))
        start += len(text)
        if "\n" in token:
            line, start = line + 1, 0
    return places


def _mean_by_block(
    scalings: Float[Tensor, "token module expert"], layers: Sequence[str]
) -> dict[str, Float[Tensor, "token expert"]]:
    """Mean scalings over the layers of each block, by the block's number as it stands in their names."""
    members: dict[str, list[int]] = {}
    for index, layer in enumerate(layers):
        block = next((part for part in layer.split(".") if part.isdigit()), layer)
        members.setdefault(block, []).append(index)
    return {block: scalings[:, indices].mean(dim=1) for block, indices in members.items()}


def _hover(
    token: str, number: int, blocks: dict[str, Float[Tensor, "token expert"]], experts: Sequence[str]
) -> str:
    lines = [f"<b>{_escape(repr(token))}</b>"]
    for block, means in blocks.items():
        top = torch.topk(means[number], min(_SHOWN_EXPERTS, len(experts)))
        shares = [
            f"{experts[expert]} {weight:.0%}"
            for weight, expert in zip(top.values.tolist(), top.indices.tolist(), strict=True)
        ]
        lines.append(f"{f'block {block}' if block.isdigit() else block}: {', '.join(shares)}")
    return "<br>".join(lines)


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _shade(colour: str, weight: float) -> str:
    red, green, blue = (int(colour[place : place + 2], 16) for place in (1, 3, 5))
    return f"rgba({red},{green},{blue},{0.08 + 0.62 * min(max(weight, 0.0), 1.0):.2f})"
