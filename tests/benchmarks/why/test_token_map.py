"""The token map says of every token what its scalings are."""

import plotly.graph_objects as go
import pytest
import torch

from finlora.benchmarks.why.figures import palette
from finlora.benchmarks.why.read_scalings import TokenScalings
from finlora.benchmarks.why.token_map import token_map

EXPERTS = ("finer", "headline")
LAYERS = ("model.layers.0.self_attn.q_proj", "model.layers.0.mlp.up_proj", "model.layers.1.mlp.up_proj")


@pytest.fixture
def figure() -> go.Figure:
    """Four tokens, whose last two predict the answer."""
    first = torch.tensor([[[0.9, 0.1], [0.5, 0.5], [0.2, 0.8]]])
    second = torch.tensor([[[0.0, 1.0]] * 3] * 3)
    read = TokenScalings(
        ("<us-gaap", ":\n", " Cash", "."),
        torch.cat([first, second]),
        torch.tensor([False, False, True, True]),
    )
    return token_map(read, experts=EXPERTS, layers=LAYERS)


def tokens_of(figure: go.Figure) -> list[go.Bar]:
    """The bars that are tokens; the others are there for the legend."""
    return [trace for trace in figure.data if trace.text is not None]


def test_every_token_belongs_to_its_strongest_expert(figure: go.Figure):
    finer, headline = tokens_of(figure)
    assert (finer.name, headline.name) == EXPERTS
    assert finer.text == ("&lt;us-gaap",)
    assert headline.text == (":⏎", "\u00a0Cash", ".")


def test_the_legend_has_full_colours_of_experts_that_are_seen(figure: go.Figure):
    legend = [trace for trace in figure.data if trace.showlegend is not False]
    assert [trace.name for trace in legend] == list(EXPERTS)
    assert [trace.marker.color for trace in legend] == palette()[:2]


def test_pointing_at_a_token_shows_its_weights_by_block(figure: go.Figure):
    finer, headline = tokens_of(figure)
    assert finer.hovertext[0] == (
        "<b>'&lt;us-gaap'</b><br>block 0: finer 70%, headline 30%<br>block 1: headline 80%, finer 20%"
    )
    assert "block 1: headline 100%" in headline.hovertext[0]


def test_lines_break_where_the_text_does_and_answers_are_framed(figure: go.Figure):
    finer, headline = tokens_of(figure)
    assert (finer.y[0], finer.base[0], finer.x[0]) == (0, 0, 8)
    assert list(headline.y) == [0, 1, 1]
    assert list(headline.base) == [8, 0, 5]
    assert list(headline.marker.line.width) == [0, 1.5, 1.5]


def test_a_long_text_is_broken_into_lines():
    read = TokenScalings(("word ",) * 50, torch.ones(50, 1, 1), torch.zeros(50, dtype=torch.bool))
    (bars,) = tokens_of(token_map(read, experts=("finer",), layers=("all layers",)))
    assert sorted(set(bars.y)) == [0, 1, 2]
    assert max(start + length for start, length in zip(bars.base, bars.x, strict=True)) <= 104
    assert bars.hovertext[0] == "<b>'word '</b><br>all layers: finer 100%"
