"""Bar charts as stand-alone SVG, for pages that run no scripts, such as a README."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape

from ..picture import svg_text
from ..plots import FONT, GRID, INK, MUTED
from .figures import CEILING_COLOUR, Bar

_WIDTH, _LEFT, _RIGHT, _TOP, _ROW, _BOTTOM = 860, 230, 70, 84, 34, 58
_TEXT = 0.09
"""Width of a number, as a share of the axis."""


def bars_svg(bars: Sequence[Bar], *, title: str, x_title: str, ceiling: str = "", form: str = ".2f") -> str:
    """Draw one bar a row, with its range as a line and its ceiling as a red tick.

    Args:
        bars: The rows, the first at the top.
        title: Heading of the picture.
        x_title: What is on the axis.
        ceiling: What the red ticks are, if there are any.
        form: How numbers are written.
    """
    height = _TOP + _ROW * len(bars) + _BOTTOM
    foot = height - _BOTTOM
    furthest = max(max(bar.number.high, bar.ceiling or 0) for bar in bars)
    step = _round_step(furthest)

    def place(value: float | int) -> float:
        return round(_LEFT + (_WIDTH - _LEFT - _RIGHT) * value / furthest, 1)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" '
        f'height="{height}" font-family="{escape(FONT)}" role="img" aria-label="{escape(title)}">',
        f'<rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>',
        svg_text(24, 34, title, size=19, anchor="start", weight=650),
    ]
    if ceiling:
        parts += [_tick(32, 56, 16), svg_text(44, 61, ceiling, anchor="start", colour=MUTED)]
    for index in range(int(furthest / step + 1e-9) + 1):
        x = place(index * step)
        parts.append(f'<line x1="{x}" y1="{_TOP - 8}" x2="{x}" y2="{foot}" stroke="{GRID}"/>')
        parts.append(svg_text(x, foot + 20, f"{index * step:g}", colour=MUTED))
    parts.append(svg_text((_LEFT + _WIDTH - _RIGHT) / 2, foot + 44, x_title, colour=MUTED))
    for index, bar in enumerate(bars):
        parts += _row(bar, _TOP + _ROW * (index + 0.5), place, furthest, form)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _row(bar: Bar, y: float, place: Callable[..., float], furthest: float | int, form: str) -> list[str]:
    number, end = bar.number, place(bar.number.value)
    low, high = place(number.low), place(number.high)
    parts = [
        svg_text(_LEFT - 14, y + 5, bar.label, size=14, anchor="end"),
        f'<rect x="{_LEFT}" y="{y - 10}" width="{end - _LEFT:.1f}" height="20" rx="2" fill="{bar.colour}"/>',
        f'<path d="M{low} {y}H{high}M{low} {y - 4}v8M{high} {y - 4}v8" stroke="{INK}" fill="none"/>',
    ]
    if bar.ceiling is not None:
        parts.append(_tick(place(bar.ceiling), y, 26))
    text = place(bar.free_place(_TEXT * furthest)) + 8
    return [*parts, svg_text(text, y + 5, f"{number.value:{form}}", anchor="start", weight=650)]


def _tick(x: float | int, y: float | int, length: int) -> str:
    return (
        f'<line x1="{x}" y1="{y - length / 2}" x2="{x}" y2="{y + length / 2}" stroke="{CEILING_COLOUR}" '
        'stroke-width="3"/>'
    )


def _round_step(furthest: float) -> float | int:
    """Distance of the axis's numbers: 1, 2 or 5 times a power of ten, four to eight of them in all."""
    power = 10.0 ** math.floor(math.log10(furthest / 4))
    return next(step * power for step in (1, 2, 5, 10) if furthest / (step * power) <= 8)
