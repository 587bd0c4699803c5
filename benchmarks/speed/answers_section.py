"""Section of the speed report on answers of trained mixtures."""

from __future__ import annotations

from collections.abc import Sequence

from ..tables import MISSING, Table
from .contenders import CONTENDERS, REFERENCE
from .figures import Bar, bar_chart
from .measurements import Measurements, in_table_order, rate, times_as_fast, values_of
from .plan import Record
from .section import ONE_LORA, Section, title_of

DRAFT = "draft"


def answers_section(found: Measurements) -> Section | None:
    """Decode steps on real questions against the task's own expert."""
    records = found.all("answers")
    if not records:
        return None
    figures, tables, first_bars = {}, {}, []
    for quantization in values_of(records, "quantization"):
        groups = by_contender([one for one in records if one["quantization"] == quantization])
        whole = {name: all_tasks(group) for name, group in groups.items()}
        bars = [_bar(record, whole[REFERENCE]) for record in whole.values()]
        first_bars = first_bars or bars
        caption = f"Base stored as {quantization}"
        figures[caption] = bar_chart(bars, x_title=f"decode speed, times {ONE_LORA}", one=True)
        tables[caption] = _table(list(whole.values()), whole[REFERENCE])
        if DRAFT in groups:
            tables[f"{caption}: mode draft, task by task"] = _by_task(found, groups[DRAFT])
    asked = {one["task"]: one["questions"] for one in records}
    return Section(
        "answers",
        "Answers to real questions",
        (
            f"Decode steps of trained mixtures on {sum(asked.values())} test questions of {len(asked)} "
            "tasks, one at a time, against the right expert alone. All generate as many tokens as the exact "
            "mixture's answer has; the steps after each prompt are timed.",
        ),
        figures,
        tables,
        "Answers are short, and the first step after a prompt cannot be proposed, which is why passes a "
        "token stay above one where nearly all proposals are accepted.",
        first_bars,
    )


def by_contender(records: Sequence[Record]) -> dict[str, list[Record]]:
    """Records of each contender, in the order of the table."""
    ordered = in_table_order(records)
    return {
        name: [one for one in ordered if one["contender"] == name] for name in values_of(ordered, "contender")
    }


def _bar(record: Record, reference: Record) -> Bar:
    ratio = times_as_fast(record["seconds"], reference["seconds"])
    return Bar(title_of(record), ratio, CONTENDERS[record["contender"]].colour)


def _table(records: Sequence[Record], reference: Record) -> Table:
    rows = tuple(
        (
            title_of(record),
            rate(record["seconds"], record["tokens"]).text(".1f"),
            times_as_fast(record["seconds"], reference["seconds"]).text(),
            *_proposals(record),
        )
        for record in records
    )
    headers = ("Contender", "Tokens a second", f"Times {ONE_LORA}", "Passes a token", "Proposals accepted")
    return Table(headers, rows, ONE_LORA)


def all_tasks(group: Sequence[Record]) -> Record:
    """One record for all tasks: seconds of the same turn, tokens and passes added up."""
    sums = {
        key: sum(record[key] for record in group)
        for key in ("tokens", "passes", "proposed", "accepted")
        if all(key in record for record in group)
    }
    turns = zip(*(record["seconds"] for record in group), strict=False)
    return {"contender": group[0]["contender"], "seconds": [sum(turn) for turn in turns], **sums}


def _by_task(found: Measurements, records: Sequence[Record]) -> Table:
    rows = []
    for record in records:
        ratio, exact = found.against(record), found.against(record, "exact")
        assert ratio is not None
        rows.append(
            (
                record["task"],
                f"{record['tokens'] / record['questions']:.1f}",
                *_proposals(record),
                ratio.text(),
                MISSING if exact is None else exact.text(),
            )
        )
    headers = (
        "Task",
        "Decode steps an answer",
        "Passes a token",
        "Proposals accepted",
        f"Times {ONE_LORA}",
        f"Times {CONTENDERS['exact'].title}",
    )
    return Table(headers, tuple(rows))


def _proposals(record: Record) -> tuple[str, str]:
    if not record.get("proposed"):
        return MISSING, MISSING
    return f"{record['passes'] / record['tokens']:.2f}", f"{record['accepted'] / record['proposed']:.0%}"
