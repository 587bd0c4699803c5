"""The report of a comparison: `report.html`, one self-contained page, and `report.md`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import plotly.graph_objects as go

from ...experts.atomic_write import write_text
from ..page import plot_html, render_page
from ..plots import layout
from ..results import read_json_lines
from ..statistics import Interval
from ..tables import MISSING, Table
from .plan import FEDERATED_ARMS, XBRL_TASKS
from .scores import BASE, INFINITE, FoundScores, name_of

TITLE = "What do banks gain by training together, and what does privacy cost?"
ARM_TITLES = {
    "central": "One party with all records",
    "local": "Each bank alone",
    "ffa": "FFA-LoRA: A public, B trained",
    "fedit": "FedIT: A and B averaged apart",
    "product": "Mean of the products B A",
    "alternating": "RoLoRA: A and B in turn",
    "core": "r x r core between fixed A and B",
    "fedsa": "FedSA: A shared, B stays in the bank",
}
KEPT = 80
"""Percent of the gain without privacy that privacy should leave."""
COLOURS = ("#111827", "#9ca3af", "#0f766e", "#b45309", "#7c3aed", "#be123c", "#1d4ed8", "#4d7c0f")


@dataclass(frozen=True)
class Section:
    """A part of the report."""

    title: str
    words: tuple[str, ...]
    tables: tuple[Table, ...] = ()
    plots: Mapping[str, go.Figure] = field(default_factory=dict)


def build_report(folder: Path) -> None:
    """Write both reports from `cells.jsonl` and, where they are there, `attacks.jsonl` and `costs.jsonl`."""
    cells = read_json_lines(folder / "cells.jsonl")
    plan = json.loads((folder / "plan.json").read_text(encoding="utf-8"))
    found = FoundScores(cells)
    attacks, costs = (
        read_json_lines(folder / name) if (folder / name).exists() else []
        for name in ("attacks.jsonl", "costs.jsonl")
    )
    made = [
        utility_section(found, plan),
        division_section(found, plan),
        records_section(found, plan),
        privacy_section(cells),
        attack_section(attacks),
        cost_section(cells, costs),
    ]
    sections = [section for section in made if section is not None]
    write_text(folder / "report.md", _markdown(sections))
    plots = {name: plot_html(figure, name) for section in sections for name, figure in section.plots.items()}
    page = render_page(__package__, "report.html.jinja", title=TITLE, sections=sections, plots=plots)
    write_text(folder / "report.html", page)


def utility_section(found: FoundScores, plan: Mapping[str, Any]) -> Section:
    """Mean score of each arm at each epsilon, and question kinds one by one without privacy."""
    alpha, epsilons = plan["alphas"][0], [_shown_epsilon(epsilon) for epsilon in plan["epsilons"]]
    rows, kinds, curves = [], [], {}
    for arm, title in ARM_TITLES.items():
        names = [name_of(arm, alpha, epsilon) for epsilon in epsilons]
        rows.append((title, *(_score(found, name) for name in names)))
        kinds.append((title, *(_score(found, names[0], task) for task in XBRL_TASKS)))
        curves[title] = [found.score(name) if name in found else None for name in names]
    base = ("Base", *(_score(found, BASE) for _ in epsilons))
    heads = ("Who trains", *(f"epsilon {epsilon}" for epsilon in epsilons))
    words = (
        f"Mean score over the four XBRL question kinds, 0 to 100, {plan['banks']} banks, Dirichlet alpha "
        f"{alpha:g}. In brackets 95 % intervals by a bootstrap over seeds and companies, and the number of "
        "seeds where it is below three.",
    )
    kinds.append(("Base", *(_score(found, BASE, task) for task in XBRL_TASKS)))
    tables = (Table(heads, (*rows, base)), Table(("Without privacy", *XBRL_TASKS), tuple(kinds)))
    figure = utility_plot(curves, epsilons, found.score(BASE))
    return Section("Utility against epsilon", words, tables, {"utility": figure})


def utility_plot(
    curves: Mapping[str, Sequence[Interval | None]], epsilons: Sequence[str], base: Interval
) -> go.Figure:
    """One line an arm over epsilon, weakest privacy at the left, with intervals."""
    figure = go.Figure()
    for colour, (title, numbers) in zip(COLOURS, curves.items(), strict=True):
        shown = [(place, one) for place, one in enumerate(numbers) if one is not None]
        figure.add_trace(
            go.Scatter(
                x=[epsilons[place] for place, _ in shown],
                y=[one.value for _, one in shown],
                error_y={
                    "type": "data",
                    "symmetric": False,
                    "array": [one.high - one.value for _, one in shown],
                    "arrayminus": [one.value - one.low for _, one in shown],
                    "thickness": 1.5,
                    "width": 3,
                },
                name=title,
                mode="lines+markers",
                line={"color": colour},
            )
        )
    figure.add_hline(y=base.value, line={"dash": "dot", "color": "#6b7280"}, annotation_text="base")
    figure.update_layout(**layout(460), legend={"orientation": "h", "y": -0.25})
    figure.update_xaxes(type="category", categoryarray=list(epsilons), title="epsilon")
    figure.update_yaxes(range=[-3, 103], title="mean score")
    return figure


def division_section(found: FoundScores, plan: Mapping[str, Any]) -> Section | None:
    """How much of the central gain is kept at each unevenness, and whether banks gain by joining."""
    central = name_of("central", plan["alphas"][0], INFINITE)
    rows = []
    for alpha in sorted(plan["alphas"]):
        for arm in FEDERATED_ARMS:
            name, alone = name_of(arm, alpha, INFINITE), name_of("local", alpha, INFINITE)
            if name not in found or central not in found:
                continue
            below = [task for task in XBRL_TASKS if found.difference(name, BASE, task).high < 0]
            gained = _shown(found.difference(name, alone), "+.1f") if alone in found else MISSING
            rows.append(
                (
                    f"alpha {alpha:g}, {ARM_TITLES[arm]}",
                    _score(found, name),
                    _shown(found.share(name, central), ".0f"),
                    gained,
                    ", ".join(below) or "none",
                )
            )
    if not rows:
        return None
    heads = (
        "Division, adapter",
        "Score",
        "% of the gain from base to central",
        "Minus each bank alone",
        "Below base",
    )
    return Section(
        "Without privacy: uneven banks",
        (
            "The lower alpha, the more a bank has of few kinds of question. FinLoRA's published federated "
            "adapters recover 11 % of the central gain, and two of four kinds fall below the base.",
        ),
        (Table(heads, tuple(rows)),),
    )


def records_section(found: FoundScores, plan: Mapping[str, Any]) -> Section | None:
    """How much of the gain epsilon leaves, and what more records would."""
    alpha, best = plan["alphas"][0], [epsilon for epsilon in plan["epsilons"] if epsilon != "inf"]
    finite = [epsilon for epsilon in best if isinstance(epsilon, float | int) and epsilon != float("inf")]
    if not finite:
        return None
    rows, enough = [], {}
    for arm, title in ARM_TITLES.items():
        free = name_of(arm, alpha, INFINITE)
        for times in (1.0, *plan["more_records"]):
            name = name_of(arm, alpha, finite[0], times)
            if name in found and free in found:
                records = sum(found.cells[name][0]["records"].values()) * times
                share = found.share(name, free)
                rows.append((title, f"{records:,.0f}", _score(found, name), _shown(share, ".0f")))
                keeps = share is not None and share.value >= KEPT
                enough[title] = enough.get(title) or (f"{records:,.0f}" if keeps else None)
    if not rows:
        return None
    heads = ("Who trains", "Records of all parties", "Score", "% of its own gain without privacy")
    words = (
        f"At epsilon {finite[0]:g}. Rows with more records than the suite has are estimates: the noise is "
        "divided by the factor, as for banks whose batches are so much larger at the same sampling rate. "
        f"They take {plan['many_rounds']} rounds instead of {plan['private_rounds']} and clip at "
        f"{plan['many_clip']:g} instead of {plan['clip']:g}, which pays where noise matters less. Who trains "
        "alone takes a core with privacy and FFA-LoRA without, and its gain is that of the latter.",
        *(
            f"{title}: {KEPT} % of the gain are kept with {records} records."
            if records
            else f"{title}: no number of records that was tried keeps {KEPT} % of the gain."
            for title, records in enough.items()
        ),
    )
    return Section("How many records privacy needs", words, (Table(heads, tuple(rows)),))


def privacy_section(cells: Sequence[Mapping[str, Any]]) -> Section | None:
    """The two accountants side by side, over all private trainings."""
    parties = [(cell["epsilon"], one) for cell in cells for one in cell.get("privacy", [])]
    if not parties:
        return None
    rows = []
    for epsilon in sorted({epsilon for epsilon, _ in parties}):
        same = [one for own, one in parties if own == epsilon]
        gaps = [one["prv"] - one["pld"] for one in same]
        noise = [one["noise_multiplier"] for one in same]
        rows.append(
            (
                f"{epsilon:g}",
                str(len(same)),
                f"{min(noise):.2f} to {max(noise):.2f}",
                f"{max(one['prv'] for one in same):.3f}",
                f"{min(gaps):.4f} to {max(gaps):.4f}",
            )
        )
    heads = ("epsilon", "Parties", "Noise multiplier", "Largest epsilon by PRV", "PRV minus PLD")
    words = (
        "Opacus' PRV accountant beside Google's privacy loss distributions, for each party's whole run.",
    )
    return Section("The accountants", words, (Table(heads, tuple(rows)),))


def attack_section(attacks: Sequence[Mapping[str, Any]]) -> Section | None:
    """Membership inference and canaries on both experts."""
    if not attacks:
        return None
    rows = []
    for record in attacks:
        for attack in record["attacks"]:
            interval = Interval(attack["auc"], attack["low"], attack["high"])
            found = f"{100 * attack['tpr_at_1']:.1f}"
            rows.append((record["expert"], attack["attack"], _shown(interval, ".3f"), found))
    canaries = [
        (
            record["expert"],
            f"{record['canaries']['correct']} of {record['canaries']['guessed']}",
            f"{record['canaries']['epsilon_low']:.2f}",
            str(record["epsilon"]),
        )
        for record in attacks
    ]
    tables = (
        Table(
            ("Expert", "Attack", "Area under the curve", "% of members found at 1 % false alarms"),
            tuple(rows),
        ),
        Table(
            ("Expert", "Canaries guessed right", "epsilon at least (95 %)", "epsilon promised"),
            tuple(canaries),
        ),
    )
    words = ("An area of 0.5 is guessing. The overfitted expert shows that the attacks work.",)
    return Section("Attacks", words, tables)


def cost_section(cells: Sequence[Mapping[str, Any]], costs: Sequence[Mapping[str, Any]]) -> Section | None:
    """Bytes and seconds of a round, by adapter and by part."""
    shown: dict[str, Mapping[str, Any]] = {}
    for cell in cells:
        if "seconds_per_round" in cell:
            key = f"{ARM_TITLES[cell['arm']]}, {'private' if cell['privacy'] else 'not private'}"
            shown.setdefault(key, cell)
    rows = tuple(
        (
            key,
            str(cell["rounds"]),
            f"{cell['seconds_per_round']:.1f}",
            f"{cell['bytes_up_per_bank'] / 1000:,.1f}",
            f"{cell['bytes_down_per_bank'] / 1000:,.1f}",
        )
        for key, cell in shown.items()
    )
    if not rows:
        return None
    heads = ("Adapter", "Rounds", "Seconds a round", "kB up, a bank and round", "kB down, a bank and round")
    tables = [Table(heads, rows)]
    if costs:
        parts = tuple(
            (one["part"], f"{one['seconds']:.3f}", f"{one['bytes'] / 1000:,.1f}", str(one["values"]))
            for one in costs
        )
        tables.append(Table(("Part of a round", "Seconds a bank", "kB up, a bank", "Values"), parts))
    words = ("All banks of the simulation share one CPU core with other work, so seconds are upper bounds.",)
    return Section("What a round costs", words, tuple(tables))


def _score(found: FoundScores, name: str, task: str | None = None) -> str:
    if name not in found:
        return MISSING
    number = found.score(name) if task is None else found.score(name, task)
    seeds = found.seeds(name)
    few = "" if name == BASE or seeds >= 3 else f"; {seeds} seed{'s' if seeds > 1 else ''}"
    return f"{number.value:.1f} ({number.low:.1f} to {number.high:.1f}{few})"


def _shown(number: Interval | None, form: str) -> str:
    if number is None:
        return MISSING
    return f"{number.value:{form}} ({number.low:{form}} to {number.high:{form}})"


def _shown_epsilon(epsilon: float | str) -> str:
    return INFINITE if float(epsilon) == float("inf") else f"{float(epsilon):g}"


def _markdown(sections: Sequence[Section]) -> str:
    parts = [f"# {TITLE}"]
    for section in sections:
        tables = [table.markdown() for table in section.tables]
        parts += [f"## {section.title}", *section.words, *tables]
    return "\n\n".join(parts) + "\n"
