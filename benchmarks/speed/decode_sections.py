"""Sections of the speed report on prefill and decode steps."""

from __future__ import annotations

from collections.abc import Sequence

from ..plots import SCORE_COLOURS, heat_map
from ..tables import MISSING, Table
from .contenders import CONTENDERS, REFERENCE
from .figures import Bar, bar_chart, grouped_bars, line_chart
from .measurements import Measurements, Spread, in_table_order, rate, tokens_per_second, values_of
from .plan import Record
from .section import ONE_LORA, Section, title_of

QUANTIZATION_COLOURS = ("#0f766e", "#d97706", "#7c3aed")


def first_decodes(found: Measurements) -> list[Record]:
    """Records of decode steps at batch 1 and the shortest prompt, in the table's order."""
    records = found.all("decode", part="decode", batch=1)
    shortest = min((record["prompt_tokens"] for record in records), default=0)
    return in_table_order(record for record in records if record["prompt_tokens"] == shortest)


def decode_section(found: Measurements) -> Section | None:
    """Decode steps at batch 1 against one LoRA, and the ceilings."""
    records = first_decodes(found)
    if not records:
        return None
    bars, rows = [], []
    for record in records:
        ratio, ceiling = found.against(record), found.ceiling(record)
        if ratio is None:
            continue
        bars.append(Bar(title_of(record), ratio, CONTENDERS[record["contender"]].colour, ceiling))
        rows.append(
            (
                title_of(record),
                tokens_per_second(record).text(".1f"),
                ratio.text(),
                MISSING if ceiling is None else f"{ceiling:.2f}",
                f"{1 / found.bound(record):,.0f}",
                f"{100 * found.bound(record) / record['median_seconds']:.0f} %",
            )
        )
    headers = (
        "Contender",
        "Tokens a second",
        f"Times {ONE_LORA}",
        "Ceiling of that",
        "Most tokens a second",
        "Share of the bound reached",
    )
    return Section(
        "decode",
        "Decoding, one sequence",
        (
            f"Tokens a second after a prompt of {records[0]['prompt_tokens']} tokens, against one LoRA "
            "adapter in the same code. The red tick is the ceiling of that ratio if both ran as fast as "
            "memory can be read.",
        ),
        {"": bar_chart(bars, x_title=f"decode speed, times {ONE_LORA}", one=True)},
        {"": Table(headers, tuple(rows), ONE_LORA)},
        "Brackets and black lines: smallest and largest of the repeats; of a ratio, those of turns in "
        "which both ran one after the other. The bound is the larger of bytes read over memory bandwidth "
        "and multiplications over matrix speed, both measured here; a share far below 100 % is time "
        "between operations, and where much of the time is that, a ratio can be above its ceiling.",
        bars,
    )


def grid_section(found: Measurements) -> Section | None:
    """Prefill and decoding by batch and prompt length."""
    decodes = found.all("decode", part="decode")
    if not decodes:
        return None
    cells = [(record["batch"], record["prompt_tokens"]) for record in decodes]
    cells = sorted(set(cells), key=lambda cell: (cell[1], cell[0]))
    names = [
        name
        for name in values_of(in_table_order(decodes), "contender")
        if not CONTENDERS[name].top_k and name != REFERENCE
    ]
    names = [name for name in names if all(_ratio(found, "decode", name, *cell) for cell in cells)]
    columns = [f"{batch} x {prompt:,}" for batch, prompt in cells]
    figures, tables = {}, {}
    for quantity, caption in (("decode", "Decode speed"), ("prefill", "Prefill speed")):
        ratios = [[_ratio(found, quantity, name, *cell) for cell in cells] for name in names]
        values = [[one.value if one else 0.0 for one in row] for row in ratios]
        figures[f"{caption}, times {ONE_LORA}"] = heat_map(
            values,
            rows=[CONTENDERS[name].title for name in names],
            columns=columns,
            row_title="",
            column_title="batch x prompt tokens",
            highest=max(1.0, *(value for row in values for value in row)),
            digits=2,
            colours=SCORE_COLOURS,
        )
        tables[f"{caption}: tokens a second"] = _grid_table(found, quantity, cells, columns)
    skipped = [
        f"Batch {one['batch']} with {one['prompt_tokens']:,} tokens was left out: {one['reason']}."
        for one in found.all("left out", part="decode")
    ]
    return Section(
        "grid",
        "Batches and prompt lengths",
        (
            "The prefill lasts until the first new token; decode steps follow. A batch reads the weights "
            "once for all its rows, so with more rows multiplications count for more, and caches too.",
            *skipped,
        ),
        figures,
        tables,
        "Tokens a second are those of all rows together; brackets: smallest to largest of the repeats. "
        "More than one row chooses nearly all experts, so top 2 is compared for one sequence only.",
    )


def _ratio(found: Measurements, quantity: str, name: str, batch: int, prompt: int) -> Spread | None:
    record = found.find(quantity, name, part="decode", batch=batch, prompt_tokens=prompt)
    return None if record is None else found.against(record)


def _grid_table(
    found: Measurements, quantity: str, cells: Sequence[tuple[int, int]], columns: Sequence[str]
) -> Table:
    rows = []
    for name, contender in CONTENDERS.items():
        numbers = []
        for batch, prompt in cells:
            record = found.find(quantity, name, part="decode", batch=batch, prompt_tokens=prompt)
            tokens = batch if quantity == "decode" else batch * prompt
            numbers.append(rate(record["seconds"], tokens).text(",.0f") if record else MISSING)
        if set(numbers) != {MISSING}:
            rows.append((contender.title, *numbers))
    return Table(("Contender", *columns), tuple(rows), ONE_LORA)


def growth_section(found: Measurements) -> Section | None:
    """Decoding by number of experts and by rank."""
    figures, tables = {}, {}
    for axis, x_title in (("experts", "number of experts"), ("rank", "rank of every expert")):
        records = found.all("decode", part="growth", axis=axis)
        if not records:
            continue
        names = [name for name in CONTENDERS if name in values_of(records, "contender") and name != REFERENCE]
        sizes = sorted({record[axis] for record in records})
        lines: dict[str, dict[int, Spread]] = {CONTENDERS[name].title: {} for name in names}
        for record in records:
            ratio = found.against(record, REFERENCE, *(["experts"] if axis == "experts" else []))
            if ratio and record["contender"] != REFERENCE:
                lines[title_of(record)][record[axis]] = ratio
        lines = {name: dict(sorted(points.items())) for name, points in lines.items()}
        figures[f"By {x_title}"] = line_chart(
            lines,
            {CONTENDERS[name].title: CONTENDERS[name].colour for name in names},
            x_title=x_title,
            y_title=f"decode speed, times {ONE_LORA}",
        )
        tables[f"By {x_title}: decode speed, times {ONE_LORA}"] = Table(
            ("Contender", *map(str, sizes)),
            tuple(
                (name, *(points[size].text() if size in points else MISSING for size in sizes))
                for name, points in lines.items()
            ),
        )
    if not figures:
        return None
    shape = "with the rank of the shape where experts grow, and its number of experts where the rank grows"
    return Section(
        "growth",
        "More experts, larger ranks",
        (f"Decode speed, one sequence, {shape}; one LoRA of the same rank is 1.",),
        figures,
        tables,
        "Brackets and black lines: smallest to largest of the turns.",
    )


def quantization_section(found: Measurements) -> Section | None:
    """Decoding and prefill by quantization."""
    decodes = found.all("decode", part="quantization")
    if not decodes:
        return None
    kinds = values_of(decodes, "quantization")
    groups = {
        kind: [
            Bar(title_of(record), tokens_per_second(record), "")
            for record in in_table_order(decodes)
            if record["quantization"] == kind
        ]
        for kind in kinds
    }
    tables = {}
    for quantity, caption in (("decode", "Decode"), ("prefill", "Prefill")):
        rows = []
        for name, contender in CONTENDERS.items():
            found_records = [
                found.find(quantity, name, part="quantization", quantization=kind) for kind in kinds
            ]
            if not any(found_records):
                continue
            cells = []
            for record in found_records:
                ratio = None if record is None else found.against(record)
                cells.append(_speed(record, quantity) if record else MISSING)
                cells.append(ratio.text() if ratio else MISSING)
            rows.append((contender.title, *cells))
        heads = [head for kind in kinds for head in (f"{kind}: tokens a second", f"times {ONE_LORA}")]
        tables[caption] = Table(("Contender", *heads), tuple(rows), ONE_LORA)
    return Section(
        "quantization",
        "Quantized bases",
        (
            f"One sequence, a prompt of {decodes[0]['prompt_tokens']} tokens, by how the base is stored. "
            "Experts and router are not quantized.",
        ),
        {"": grouped_bars(groups, QUANTIZATION_COLOURS, x_title="tokens decoded a second", form=".1f")},
        tables,
        "PEFT's X-LoRA does not run on a quantized base. Ratios are to one LoRA on the same base.",
    )


def _speed(record: Record, quantity: str) -> str:
    tokens = record["batch"] * (1 if quantity == "decode" else record["prompt_tokens"])
    return rate(record["seconds"], tokens).text(",.1f" if quantity == "decode" else ",.0f")
