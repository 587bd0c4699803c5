"""The report of a speed run: `report.html`, one self-contained page; `speed.md`; pictures for a README."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...experts.atomic_write import write_text
from ..page import plot_html, render_page
from ..results import read_json_lines
from ..tables import Table
from .answers_section import answers_section
from .bounds import bounds_section
from .contenders import CONTENDERS
from .cost_sections import generation_section, memory_section, training_section
from .decode_sections import decode_section, grid_section, growth_section, quantization_section
from .findings import findings
from .measurements import Measurements, values_of
from .picture import bars_svg
from .section import ONE_LORA, Section

TEMPLATE = "report.html.jinja"
TITLE = "How fast is a mixture?"
SECTIONS: tuple[Callable[[Measurements], Section | None], ...] = (
    decode_section,
    answers_section,
    bounds_section,
    generation_section,
    grid_section,
    growth_section,
    quantization_section,
    training_section,
    memory_section,
)
"""In the order of the report."""


def build_report(folder: Path) -> None:
    """Write all reports of a run from its `speed.jsonl` and `config.json`; parts not run are absent."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    found = Measurements(read_json_lines(folder / "speed.jsonl"))
    sections = [section for make in SECTIONS if (section := make(found)) is not None]
    sentences, origin = findings(found), origin_table(config, found)
    for section in sections:
        if (picture := _picture(section)) is not None:
            write_text(folder / ("speed.svg" if section.key == "decode" else f"{section.key}.svg"), picture)
    write_text(folder / "speed.md", _markdown(sentences, sections, origin, config))
    write_text(folder / "report.html", _html(sentences, sections, origin, config))


def origin_table(config: Mapping[str, Any], found: Measurements) -> Table:
    """Machine, shape, sizes and commit."""
    machine = config["machine"]
    rows = [
        ("Machine", f"{machine['device']}, {machine['threads']} threads, torch {machine['torch']}"),
        ("Random Llama", _plain(config["shape"])),
        ("Sizes", _plain(config["plan"])),
        ("Repeats", str(config["repeats"])),
        ("Commit", ", ".join(str(commit) for commit in values_of(found.records, "commit"))),
    ]
    return Table(("What", "Value"), tuple(rows), prose=True)


def _plain(settings: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{key.replace('_', ' ')} {' '.join(map(str, value)) if isinstance(value, list) else value}"
        for key, value in settings.items()
    )


def _picture(section: Section) -> str | None:
    if not section.bars:
        return None
    titles = {
        "decode": (f"Decode speed, times {ONE_LORA}", "times one LoRA adapter in the same code", ".2f"),
        "answers": ("Answers to real questions", "times the right expert alone", ".2f"),
        "generation": ("Whole generations beside PEFT's X-LoRA", "times as fast as PEFT's X-LoRA", ".1f"),
        "training": ("Training step beside a LoRA in PEFT", "times as long; shorter is better", ".2f"),
    }
    title, x_title, form = titles[section.key]
    has_ceiling = any(bar.ceiling is not None for bar in section.bars)
    ceiling = "ceiling: both as fast as memory can be read" if has_ceiling else ""
    return bars_svg(section.bars, title=title, x_title=x_title, ceiling=ceiling, form=form)


def _html(
    sentences: Sequence[str], sections: Sequence[Section], origin: Table, config: Mapping[str, Any]
) -> str:
    plots = {
        section.key: {
            caption: plot_html(figure, f"{section.key}-{number}")
            for number, (caption, figure) in enumerate(section.figures.items())
        }
        for section in sections
    }
    return render_page(
        __package__,
        TEMPLATE,
        title=TITLE,
        sentences=sentences,
        sections=sections,
        plots=plots,
        contenders=CONTENDERS.values(),
        origin=origin,
        config=config,
    )


def _markdown(
    sentences: Sequence[str], sections: Sequence[Section], origin: Table, config: Mapping[str, Any]
) -> str:
    parts = [f"# {TITLE}", f"**{sentences[0]}**", "\n".join(f"- {sentence}" for sentence in sentences[1:])]
    parts.append(
        f"Random weights; medians of {config['repeats']} repeats in turn, in brackets the smallest and "
        "the largest."
    )
    for section in sections:
        parts += [f"## {section.title}", *section.words]
        for caption, table in section.tables.items():
            parts += [f"### {caption}"] if caption else []
            parts.append(table.markdown())
        parts += [f"**{contender}.** {words}" for contender, words in section.remarks.items()]
        parts.append(section.note)
    parts += ["## How it was made", origin.markdown()]
    return "\n\n".join(part for part in parts if part) + "\n"
