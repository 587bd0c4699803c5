"""Sections of the speed report on whole generations, training and memory."""

from __future__ import annotations

from ..tables import Table
from .contenders import CONTENDERS, PEFT_XLORA
from .figures import Bar, bar_chart
from .measurements import Measurements, Spread, in_table_order, rate, spread
from .section import Section, title_of
from .training import LORA_STEP, TRAINING

MEBIBYTE = 2**20


def generation_section(found: Measurements) -> Section | None:
    """Whole generations against PEFT's X-LoRA."""
    records = found.all("generation")
    if not records:
        return None
    groups: dict[str, list[Bar]] = {}
    rows: dict[str, list[tuple[str, ...]]] = {}
    for record in in_table_order(records):
        about = {"prompt_tokens": record["prompt_tokens"], "new_tokens": record["new_tokens"]}
        ratio = found.against(record, PEFT_XLORA)
        assert ratio is not None
        lengths = "{prompt_tokens:,} prompt and {new_tokens} new tokens".format(**about)
        if record["contender"] != PEFT_XLORA:
            colour = CONTENDERS[record["contender"]].colour
            groups.setdefault(lengths, []).append(Bar(title_of(record), ratio, colour))
        rows.setdefault(lengths, []).append(
            (
                title_of(record),
                f"{record['prompt_tokens']:,} + {record['new_tokens']}",
                spread(record["seconds"]).text(),
                str(len(record["seconds"])),
                ratio.text(".1f"),
            )
        )
    headers = (
        "Contender",
        "Prompt + new tokens",
        "Seconds",
        "Times measured",
        f"Times {CONTENDERS[PEFT_XLORA].title}",
    )
    longest = list(groups.values())[-1]
    return Section(
        "generation",
        "Whole generations beside PEFT's X-LoRA",
        (
            "From prompt to last token, one sequence, greedy. PEFT's X-LoRA is the same model as the "
            "exact mixture; that they generate the same tokens is checked. It has no key/value cache, so "
            "every token runs the whole text again, twice.",
        ),
        {
            lengths: bar_chart(bars, x_title=f"speed, times {CONTENDERS[PEFT_XLORA].title}", form=".1f")
            for lengths, bars in groups.items()
        },
        {"": Table(headers, tuple(row for group in rows.values() for row in group))},
        "A contender that takes minutes is measured fewer times than the others.",
        longest,
    )


def training_section(found: Measurements) -> Section | None:
    """Training steps against one of a single LoRA."""
    records = found.all("training step")
    if not records:
        return None
    rows, bars = [], []
    for record in records:
        method = TRAINING[record["contender"]]
        step = found.find("training step", LORA_STEP, unit=record["unit"])
        assert step is not None
        # Times as long: the other way round than times as fast.
        turns = [own / other for own, other in zip(record["seconds"], step["seconds"], strict=False)]
        longer = Spread(record["median_seconds"] / step["median_seconds"], min(turns), max(turns))
        if record["quantization"] == "none":
            bars.append(Bar(method.title, longer, method.colour))
        rows.append(
            (
                method.title,
                record["quantization"],
                rate(record["seconds"]).text(),
                spread(record["seconds"]).text(".3f"),
                longer.text(),
            )
        )
    headers = (
        "What is trained",
        "Base",
        "Steps a second",
        "Seconds a step",
        f"Times as long as {TRAINING[LORA_STEP].title}",
    )
    first = records[0]
    return Section(
        "training",
        "Training steps",
        (
            f"Forward, backward and AdamW on {first['rows']} rows of {first['tokens']} tokens, "
            f"of which the last {first['learnt_tokens']} are learnt. Base and "
            "experts are frozen where a router trains. The scaling pass does not depend on the router, "
            "so its hidden states can be stored; what is left is the mixture pass. Checkpointing "
            "computes activations twice to save memory.",
        ),
        {
            "On an unquantized base": bar_chart(
                bars, x_title=f"seconds, times {TRAINING[LORA_STEP].title}", one=True
            )
        },
        {"": Table(headers, tuple(rows))},
        "Brackets and black lines: smallest to largest of the turns. Shorter is better here.",
        bars,
    )


def memory_section(found: Measurements) -> Section | None:
    """Peak memory above what a loaded model holds."""
    figures, tables = {}, {}
    for work, names in (
        ("generation", {name: (one.title, one.colour) for name, one in CONTENDERS.items()}),
        ("training", {name: (one.title, one.colour) for name, one in TRAINING.items()}),
    ):
        bars, rows = [], []
        for name, (title, colour) in names.items():
            record = found.find("memory", name, work=work)
            if record is not None:
                mebibytes = spread([size / MEBIBYTE for size in record["bytes"]])
                bars.append(Bar(title, mebibytes, colour))
                rows.append((title, mebibytes.text(",.1f")))
        if bars:
            first = found.all("memory", work=work)[0]
            caption = (
                f"Generation, {first['prompt_tokens']:,} prompt and {first['new_tokens']} new tokens"
                if work == "generation"
                else f"Training step, {first['rows']} rows of {first['tokens']} tokens"
            )
            figures[caption] = bar_chart(bars, x_title="MiB above the loaded model", form=",.0f")
            tables[caption] = Table((caption.split(",")[0], "MiB above the loaded model"), tuple(rows))
    lost = [
        f"{one['work']} of {one['contender']}: {one['reason']}."
        for one in found.all("left out", part="memory")
    ]
    if not figures:
        return None
    return Section(
        "memory",
        "Peak memory",
        (
            "By how much memory rises above what the process holds once the model is loaded, each "
            "measured in fresh processes.",
            *lost,
        ),
        figures,
        tables,
        "On CUDA, memory that torch allocated on the device; on a CPU, resident memory of the process.",
    )
