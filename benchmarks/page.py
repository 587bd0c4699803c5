"""What self-contained HTML pages with plots have in common."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import jinja2
import plotly.graph_objects as go
from plotly.offline import get_plotlyjs


def render_page(package: str | None, template: str, **values: Any) -> str:
    """Fill a template that lies in a package; `plotlyjs` is there for it beside the values."""
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    text = files(package or "").joinpath(template).read_text(encoding="utf-8")
    return environment.from_string(text).render(plotlyjs=get_plotlyjs(), **values)


def plot_html(figure: go.Figure, name: str) -> str:
    """A plot as a piece of a page that loads plotly once."""
    return figure.to_html(
        full_html=False,
        include_plotlyjs=False,
        div_id=f"plot-{name}",
        config={"displaylogo": False, "responsive": True, "displayModeBar": False},
    )
