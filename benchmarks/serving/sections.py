"""The sections of the load test's report: what each found in words, a table, and a plot."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import plotly.graph_objects as go

from ..plots import GRID, layout
from ..tables import Table
from .ratios import Estimate, average
from .records import BY_PROCESSOR, THROUGHPUT, Records, texts

TITLES = {
    "engine": "FinLoRA's engine",
    "peft_set_adapter": "PEFT, set_adapter",
    "peft_mixed": "PEFT, mixed batches",
    "base": "Base",
    "expert": "One expert",
    "weights": "Weight set",
    "mixture_trunk": "Mixture, trunk",
    "mixture_exact": "Mixture, exact",
    "fcfs": "First come, first served",
    "abort": "Early abort",
}
COLOURS = {
    "engine": "#0f766e",
    "peft_set_adapter": "#b45309",
    "peft_mixed": "#7c3aed",
    "base": "#64748b",
    "expert": "#0f766e",
    "weights": "#2563eb",
    "mixture_trunk": "#7c3aed",
    "mixture_exact": "#be185d",
    "fcfs": "#b45309",
    "abort": "#0f766e",
}
_ROW = 30


@dataclass(frozen=True)
class Section:
    """A part of the report."""

    key: str
    title: str
    words: str
    claims: Sequence[str]
    """What was found, a sentence each."""
    table: Table
    figure: go.Figure | None = None
    notes: Sequence[str] = field(default_factory=tuple)


def experts_section(found: Records) -> Section | None:
    """One expert a request, by the number of registered experts, beside PEFT."""
    if not found.of("experts"):
        return None
    rows, bars, claims = [], [], []
    for quantization in found.values("experts", "quantization"):
        about = {"quantization": quantization}
        for count in found.values("experts", "experts", **about):
            for name in found.values("experts", "contender", experts=count, **about):
                which = {"experts": count, "contender": name}
                own = {**about, **which}
                against = [
                    found.ratio("experts", number, {"experts": count, "contender": "engine"}, which, **about)
                    for number in (THROUGHPUT, BY_PROCESSOR)
                ]
                speed = found.mean("experts", THROUGHPUT, **own)
                first = found.mean("experts", "first_token.p50", **own)
                rows.append(
                    (
                        f"{TITLES[name]}, {count:,}",
                        quantization,
                        *texts([speed, found.mean("experts", BY_PROCESSOR, **own), first]),
                        *(["-", "-"] if name == "engine" else texts(against, ".1f")),
                    )
                )
                bars.append((f"{TITLES[name]}, {count:,} experts, {quantization}", speed, COLOURS[name]))
        claims += _expert_claims(found, quantization)
    headers = (
        "Server, registered experts",
        "Base",
        "Requests a second",
        "Requests a processor second",
        "First token, median, s",
        "Engine times as fast",
        "The same by processor time",
    )
    return Section(
        "experts",
        "One expert a request",
        "S-LoRA's trace, each request for one expert, sent at its own times, faster than any server answers, "
        "so throughput is what a server can do; draining the queue counts.",
        claims,
        Table(headers, tuple(rows)),
        bar_chart(bars, "requests a second"),
        (_PROCESSOR_NOTE,),
    )


_PROCESSOR_NOTE = (
    "Numbers are means over turns, ratios geometric means of the turns' ratios, brackets their 95 % "
    "intervals (Student). Requests a processor second leave out what other programs took meanwhile; both "
    "sides of a ratio include the client."
)


def _expert_claims(found: Records, quantization: str) -> list[str]:
    about = {"quantization": quantization}
    counts = found.values("experts", "experts", contender="engine", **about)
    claims = []
    if len(counts) > 1:
        few, many = (5 if 5 in counts else min(counts)), max(counts)
        pair = ({"experts": many, "contender": "engine"}, {"experts": few, "contender": "engine"})
        wall, cpu = (found.ratio("experts", number, *pair, **about) for number in (THROUGHPUT, BY_PROCESSOR))
        claims.append(
            f"On the {quantization} base {many:,} registered experts answer {_both(wall, cpu)} times as many "
            f"requests a second as {few:,}."
        )
    for count in counts:
        for name in ("peft_set_adapter", "peft_mixed"):
            pair = ({"experts": count, "contender": "engine"}, {"experts": count, "contender": name})
            wall, cpu = (
                found.ratio("experts", number, *pair, **about) for number in (THROUGHPUT, BY_PROCESSOR)
            )
            if wall is not None:
                claims.append(
                    f"With {count:,} experts on the {quantization} base the engine answers "
                    f"{_both(wall, cpu, '.1f')} times as many requests a second as {TITLES[name]}."
                )
    return claims


def _both(wall: Estimate | None, cpu: Estimate | None, form: str = ".2f") -> str:
    first, second = texts([wall, cpu], form)
    return f"{first}, by processor time {second},"


def models_section(found: Records) -> Section | None:
    """Base, experts, weight sets and mixtures on one engine."""
    if not found.of("models"):
        return None
    rows, bars, claims = [], [], []
    for quantization in found.values("models", "quantization"):
        about = {"quantization": quantization}
        for name in found.values("models", "contender", **about):
            own = {**about, "contender": name}
            speed = found.mean("models", THROUGHPUT, **own)
            wall, cpu = (
                found.ratio("models", number, {"contender": name}, {"contender": "expert"}, **about)
                for number in (THROUGHPUT, BY_PROCESSOR)
            )
            rows.append(
                (
                    TITLES[name],
                    quantization,
                    *texts([speed, found.mean("models", BY_PROCESSOR, **own)]),
                    *texts([found.mean("models", "first_token.p50", **own), wall, cpu]),
                )
            )
            bars.append((f"{TITLES[name]}, {quantization}", speed, COLOURS[name]))
            if name in ("mixture_trunk", "mixture_exact", "weights"):
                claims.append(
                    f"{TITLES[name]} on the {quantization} base: {_both(wall, cpu)} times the requests a "
                    "second of single experts."
                )
    headers = (
        "What each request asks for",
        "Base",
        "Requests a second",
        "Requests a processor second",
        "First token, median, s",
        "Times one expert",
        "The same by processor time",
    )
    return Section(
        "models",
        "One expert, weight sets, mixtures",
        "The same trace on one engine, but what a request names differs from row to row. Weight sets and "
        "mixtures have as many experts each as the plan's set size; routers are random.",
        claims,
        Table(headers, tuple(rows)),
        bar_chart(bars, "requests a second"),
        (_PROCESSOR_NOTE,),
    )


def overload_section(found: Records) -> Section | None:
    """Early abort beside first come, first served."""
    if not found.of("overload"):
        return None
    rows, bars, claims = [], [], []
    for cv in found.values("overload", "cv"):
        for policy in found.values("overload", "contender", cv=cv):
            own = {"cv": cv, "contender": policy}
            attainment = found.mean("overload", "attainment", **own)
            others = [
                found.mean("overload", number, **own)
                for number in ("satisfaction", "throughput", "first_token.p50", "first_token.p90", "aborted")
            ]
            rows.append((f"{TITLES[policy]}, cv {cv:g}", *texts([attainment, *others])))
            bars.append((f"{TITLES[policy]}, cv {cv:g}", attainment, COLOURS[policy]))
        both = [found.mean("overload", "attainment", cv=cv, contender=policy) for policy in ("abort", "fcfs")]
        claims.append(
            f"At variation {cv:g}, {' and '.join(texts(both))} of the requests get their first token within "
            "6 s with early abort and without."
        )
    rate = found.values("overload", "rate")[0]
    headers = (
        "Admission",
        "Attainment",
        "Satisfaction",
        "Requests a second",
        "First token, median, s",
        "90 %",
        "Dropped",
    )
    return Section(
        "overload",
        "More requests than can be answered",
        f"{rate:g} requests a second, a multiple of the throughput above. Attainment is the share of all "
        "requests whose first token comes within 6 s; satisfaction weighs it by 1 - (t / 6 s)^2; dropped "
        "ones count as 0. First-token times are those of answered requests.",
        claims,
        Table(headers, tuple(rows)),
        bar_chart(bars, "share of requests with a first token within 6 s"),
    )


def cold_section(found: Records) -> Section | None:
    """What an expert costs that is not on the device."""
    records = [one for one in found.of("cold") if one["cold"]["loads"] == 1 and one["warm"]["loads"] == 0]
    if not records:
        return None
    milliseconds = {kind: [1e3 * one[kind]["first_token"] for one in records] for kind in ("cold", "warm")}
    added = [cold - warm for cold, warm in zip(milliseconds["cold"], milliseconds["warm"], strict=True)]
    rows = [
        (title, average(values).text(".1f"))
        for title, values in (
            ("Cold expert", milliseconds["cold"]),
            ("Same expert, on the device", milliseconds["warm"]),
            ("Difference", added),
        )
    ]
    return Section(
        "cold",
        "An expert that is not on the device",
        f"{len(records)} experts, each asked for twice on an idle server; the first request has to read it.",
        [f"A cold expert adds {average(added).text('.1f')} ms to the time to the first token."],
        Table(("Request", "First token, ms"), tuple(rows)),
    )


def memory_section(found: Records) -> Section | None:
    """Bytes of an expert in each place."""
    records = found.of("memory")
    if not records:
        return None
    rows = [
        (
            f"{one['experts']:,}",
            f"{one['disk_bytes'] / 1024:.0f}",
            f"{one['index_bytes'] / 1024:.2f}",
            f"{one['resident']:,}",
            f"{one['resident_bytes'] / 1024:.0f}",
            f"{one['process_bytes_all_used'] / 2**20:.0f}",
        )
        for one in records
    ]
    many = records[-1]
    headers = (
        "Registered experts",
        "Files of one, KiB",
        "Index, KiB an expert",
        "On the device",
        "One on the device, KiB",
        "Process, MiB",
    )
    grown = (many["process_bytes_all_used"] - many["process_bytes_one_used"]) / many["experts"]
    return Section(
        "memory",
        "Memory",
        "One process opens registries of rising size and asks every expert for an answer; those that fit "
        "stay on the device, in the pages that keys and values use too.",
        [
            f"An expert takes {many['resident_bytes'] / 1024:.0f} KiB on the device and "
            f"{many['disk_bytes'] / 1024:.0f} KiB on disk; one that is only registered takes "
            f"{many['index_bytes'] / 1024:.2f} KiB of the index on disk. With {many['experts']:,} registered "
            f"the process grows by {grown / 1024:.1f} KiB an expert while each is used once; "
            f"{many['evictions']:,} are evicted meanwhile."
        ],
        Table(headers, tuple(rows)),
    )


SECTIONS: Mapping[str, Callable[[Records], Section | None]] = {
    "experts": experts_section,
    "models": models_section,
    "overload": overload_section,
    "cold": cold_section,
    "memory": memory_section,
}


def bar_chart(bars: Sequence[tuple[str, Estimate | None, str]], x_title: str) -> go.Figure:
    """One bar a row with its interval; the first at the top."""
    shown = [(label, number, colour) for label, number, colour in bars if number is not None]
    reach: dict[str, Any] = {
        "type": "data",
        "symmetric": False,
        "array": [number.high - number.value for _, number, _ in shown],
        "arrayminus": [number.value - number.low for _, number, _ in shown],
        "color": "#1f2937",
        "thickness": 1.5,
    }
    figure = go.Figure(
        go.Bar(
            x=[number.value for _, number, _ in shown],
            y=[label for label, _, _ in shown],
            orientation="h",
            marker={"color": [colour for _, _, colour in shown]},
            error_x=reach,
            text=[f"{number.value:.2f}" for _, number, _ in shown],
            textposition="inside",
            insidetextanchor="start",
        )
    )
    figure.update_layout(**layout(110 + _ROW * len(shown)), showlegend=False)
    figure.update_xaxes(title=x_title, gridcolor=GRID, rangemode="tozero")
    figure.update_yaxes(autorange="reversed", ticksuffix="  ")
    return figure
