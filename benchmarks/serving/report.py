"""The load test's report: `report.html`, one self-contained page, and `serving.md`."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...experts.atomic_write import write_text
from ..page import plot_html, render_page
from ..results import read_json_lines
from ..tables import Table
from .records import Records
from .sections import SECTIONS

TITLE = "Serving many experts"
TEMPLATE = "report.html.jinja"


def build_report(folder: Path) -> None:
    """Write both reports from `serving.jsonl` and `config.json`; parts that were not run are absent."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    found = Records(read_json_lines(folder / "serving.jsonl"))
    sections = [section for make in SECTIONS.values() if (section := make(found)) is not None]
    origin = origin_table(config, found)
    plots = {one.key: plot_html(one.figure, one.key) for one in sections if one.figure is not None}
    page = render_page(
        __package__, TEMPLATE, title=TITLE, sections=sections, plots=plots, origin=origin, config=config
    )
    write_text(folder / "report.html", page)
    parts = [f"# {TITLE}"]
    for one in sections:
        parts += [f"## {one.title}", one.words, "\n".join(f"- {claim}" for claim in one.claims)]
        parts += [one.table.markdown(), *one.notes]
    parts += ["## How it was made", origin.markdown()]
    write_text(folder / "serving.md", "\n\n".join(parts) + "\n")


def origin_table(config: Mapping[str, Any], found: Records) -> Table:
    """Machine, sizes and commit."""
    machine = config["machine"]
    sizes = ", ".join(
        f"{key.replace('_', ' ')} {' '.join(map(str, value)) if isinstance(value, list) else value}"
        for key, value in config["plan"].items()
    )
    commits = dict.fromkeys(str(record["commit"]) for record in found.records)
    rows = (
        ("Machine", f"{machine['device']}, {machine['threads']} threads, torch {machine['torch']}"),
        ("Workload", "S-LoRA's generator, seed 42, prompt `Hello ` repeated, greedy, end tokens ignored"),
        ("Sizes", sizes),
        ("Turns", str(config["repeats"])),
        ("Commit", ", ".join(commits)),
    )
    return Table(("What", "Value"), rows, prose=True)
