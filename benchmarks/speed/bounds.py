"""What bounds each way to decode: bytes read, limits of the machine, and a paragraph made from them."""

from __future__ import annotations

from collections.abc import Iterator

from ..tables import MISSING, Table
from .contenders import REFERENCE
from .decode_sections import first_decodes
from .figures import stacked_bars
from .measurements import Measurements, rate, tokens_per_second
from .plan import Record
from .section import ONE_LORA, Section, title_of
from .traffic import KINDS

MEGABYTE = 1e6
KIND_TITLES = {
    "base": "base",
    "lm_head": "output layer",
    "experts": "experts",
    "router": "router",
    "cache": "key/value caches",
}
KIND_COLOURS = dict(
    zip(KIND_TITLES.values(), ("#9ca3af", "#4b5563", "#0f766e", "#d97706", "#7c3aed"), strict=True)
)
ACCEPTANCES = (0.7, 0.8, 0.9)
"""Shares of accepted proposals for which mode draft is computed, as those of random weights mean nothing."""


def bounds_section(found: Measurements) -> Section | None:
    """Bytes of one decode step, and what follows from them."""
    records = first_decodes(found)
    if not records:
        return None
    rows = {
        title_of(record): {KIND_TITLES[kind]: record["read_bytes"][kind] / MEGABYTE for kind in KINDS}
        for record in records
    }
    table = Table(
        ("Contender", *KIND_TITLES.values(), "all, MB", "GFLOP", "Weights of the base, times read"),
        tuple(
            (
                title,
                *(f"{size:,.2f}" for size in parts.values()),
                f"{sum(parts.values()):,.1f}",
                f"{record['flops'] / 1e9:.3f}",
                _text(passes_over_base(found, record)),
            )
            for record, (title, parts) in zip(records, rows.items(), strict=True)
        ),
        ONE_LORA,
    )
    return Section(
        "bounds",
        "What bounds each of them",
        (
            "A decode step cannot be faster than the bytes that it must read take to come from memory, nor "
            "than its multiplications. Where the measured time is much longer, it goes into what lies "
            "between operations.",
        ),
        {f"Read for one token after {records[0]['prompt_tokens']} tokens, MB": _figure(rows)},
        {"Read for one token, MB": table, "Limits of this machine": machine_table(found)},
        "Counted while the models ran: every tensor that was there before the step counts each time an "
        "operation reads it, of picked rows only those that are picked; quantized weights count as they "
        "are stored.",
        remarks={title_of(record): paragraph(found, record) for record in records},
    )


def _figure(rows: dict[str, dict[str, float]]):
    return stacked_bars(rows, KIND_COLOURS, x_title="MB")


def _text(number: float | None) -> str:
    return MISSING if number is None else f"{number:.2f}"


def passes_over_base(found: Measurements, record: Record) -> float | None:
    """How often a step reads the base's weights, by comparison with the base alone."""
    about = {key: record[key] for key in ("part", "unit", "batch", "prompt_tokens")}
    base = found.find("decode", "base", **about)
    return None if base is None else record["read_bytes"]["base"] / base["read_bytes"]["base"]


def paragraph(found: Measurements, record: Record) -> str:
    """What a contender reads and reaches, and what its time goes into."""
    return " ".join(_sentences(found, record))


def _sentences(found: Measurements, record: Record) -> Iterator[str]:
    machine = found.machine
    read = sum(record["read_bytes"].values())
    reading, multiplying = read / machine.bytes_per_second, record["flops"] / machine.flops_per_second
    bound, taken = max(reading, multiplying), record["median_seconds"]
    passes = passes_over_base(found, record)
    times = f", the base's weights {passes:.2f} times" if passes else ""
    yield (
        f"A token reads {read / MEGABYTE:,.1f} MB{times}; at {machine.bytes_per_second / 1e9:.1f} GB/s "
        f"that takes {1000 * reading:.2f} ms, and its multiplications {1000 * multiplying:.2f} ms."
    )
    speed = tokens_per_second(record)
    kind = "memory bandwidth" if reading >= multiplying else "matrix speed"
    ceiling, ratio = found.ceiling(record), found.against(record)
    against = ""
    if ceiling is not None and ratio is not None and record["contender"] != REFERENCE:
        against = f", {ratio.text()} of one LoRA where reading alone would allow {ceiling:.2f}"
    yield f"So {kind} allows {1 / bound:,.0f} tokens a second; measured were {speed.text('.1f')}{against}."
    yield (
        f"Of the measured {1000 * taken:.2f} ms, {100 * bound / taken:.0f} % are that bound, and "
        f"{1000 * max(0.0, taken - bound):.2f} ms are neither reading nor multiplying."
    )
    if record.get("proposed"):
        yield from _on_proposals(found, record)


def _on_proposals(found: Measurements, record: Record) -> Iterator[str]:
    steps = record["steps"] * record["batch"]
    yield (
        f"Of {record['proposed']} proposals {record['accepted']} were accepted, and {steps} tokens took "
        f"{record['passes']} passes; with random weights that says nothing of real ones."
    )
    one_lora = found.find("decode", REFERENCE, part=record["part"], unit=record["unit"])
    if one_lora is not None:
        a_pass = record["median_seconds"] * record["steps"] / record["passes"]
        ratios = ", ".join(
            f"{one_lora['median_seconds'] / (a_pass * (2 - acceptance)):.2f} at {100 * acceptance:.0f} %"
            for acceptance in ACCEPTANCES
        )
        yield (
            "Computed from the measured time of a pass, with one pass more for each refusal and no "
            f"copied text: {ratios} acceptance, times one LoRA."
        )


def machine_table(found: Measurements) -> Table:
    """Measured bandwidths and matrix speed."""
    rows = []
    for record in found.all("limit"):
        kind = "bytes" if "bytes" in record else "flops"
        unit = {"bytes": "GB/s", "flops": "GFLOP/s"}[kind]
        rows.append(
            (record["contender"], f"{rate(record['seconds'], record[kind] / 1e9).text('.1f')} {unit}")
        )
    return Table(("What", "Median, and smallest to largest"), tuple(rows))
