"""What a section of the speed report is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import plotly.graph_objects as go

from ..tables import Table
from .contenders import CONTENDERS, REFERENCE
from .figures import Bar
from .plan import Record

ONE_LORA = CONTENDERS[REFERENCE].title
"""What ratios are to."""


@dataclass(frozen=True)
class Section:
    """A part of the report.

    Attributes:
        key: Short name.
        title: Heading.
        words: Paragraphs before plot and table.
        remarks: Paragraphs after them, by the contender that each is on.
        figures: Plots, by caption.
        tables: Tables, by caption.
        note: What has to be known to read them.
        bars: The plot as plain numbers, for pictures; empty where there is none.
    """

    key: str
    title: str
    words: Sequence[str]
    figures: dict[str, go.Figure] = field(default_factory=dict)
    tables: dict[str, Table] = field(default_factory=dict)
    note: str = ""
    bars: Sequence[Bar] = ()
    remarks: dict[str, str] = field(default_factory=dict)


def title_of(record: Record) -> str:
    """What people call a contender."""
    return CONTENDERS[record["contender"]].title
