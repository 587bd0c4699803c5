"""The headline comparison as a stand-alone SVG, for pages that run no scripts, such as a README."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from .plots import FONT, GRID, INK, MUTED, Dot

_WIDTH, _LEFT, _RIGHT, _TOP, _ROW, _BOTTOM = 860, 210, 40, 76, 46, 54


def dot_plot_svg(dots: Sequence[Dot], *, title: str, x_title: str) -> str:
    """Draw dots with 95 % intervals on an axis from 0 to 100, one row a dot.

    Args:
        dots: The numbers, the first at the top.
        title: Heading of the picture.
        x_title: What is on the axis.
    """
    height = _TOP + _ROW * len(dots) + _BOTTOM
    foot = height - _BOTTOM
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" '
        f'height="{height}" font-family="{escape(FONT)}" role="img" aria-label="{escape(title)}">',
        f'<rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>',
        svg_text(24, 36, title, size=19, anchor="start", weight=650),
    ]
    for tick in range(0, 101, 20):
        x = _x(tick)
        parts.append(f'<line x1="{x}" y1="{_TOP - 14}" x2="{x}" y2="{foot}" stroke="{GRID}"/>')
        parts.append(svg_text(x, foot + 20, str(tick), colour=MUTED))
    parts.append(svg_text(_x(50), foot + 42, x_title, colour=MUTED))
    for index, dot in enumerate(dots):
        y = _TOP + _ROW * index + _ROW / 2
        parts.append(svg_text(_LEFT - 18, y + 5, dot.label, size=15, anchor="end"))
        parts.append(
            f'<line x1="{_x(dot.low)}" y1="{y}" x2="{_x(dot.high)}" y2="{y}" stroke="{dot.colour}" '
            'stroke-width="4" stroke-linecap="round"/>'
        )
        parts.append(f'<circle cx="{_x(dot.value)}" cy="{y}" r="7" fill="{dot.colour}"/>')
        parts.append(svg_text(_x(dot.value), y - 12, f"{dot.value:.1f}", colour=dot.colour, weight=650))
    return "\n".join([*parts, "</svg>"]) + "\n"


def _x(score: float | int) -> float:
    return round(_LEFT + (_WIDTH - _LEFT - _RIGHT) * score / 100, 1)


def svg_text(
    x: float | int,
    y: float | int,
    text: str,
    *,
    size: int = 13,
    anchor: str = "middle",
    colour: str = INK,
    weight: int = 400,
) -> str:
    """One line of text at a place; `anchor` says which end of it (start, middle, end)."""
    return (
        f'<text x="{x}" y="{y}" font-size="{size}" text-anchor="{anchor}" fill="{colour}" '
        f'font-weight="{weight}">'
        f"{escape(text)}</text>"
    )
