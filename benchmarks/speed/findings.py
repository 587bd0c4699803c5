"""What a run found, in sentences made from its numbers."""

from __future__ import annotations

from collections.abc import Iterator

from .contenders import CONTENDERS, PEFT_XLORA, REFERENCE
from .decode_sections import first_decodes
from .measurements import Measurements, spread
from .plan import Record
from .section import ONE_LORA, title_of
from .training import LORA_STEP, TRAINING

EXACT = "exact"
MIXED = ("router_stored", "router")
"""Training methods that are compared with a LoRA step."""


def findings(found: Measurements) -> list[str]:
    """The findings of the parts that were run; the first one stands alone."""
    return [*_decoding(found), *_generation(found), *_training(found), *_memory(found)] or [
        "The parts that were run have no comparison that a sentence could say; see below."
    ]


def _decoding(found: Measurements) -> Iterator[str]:
    records = {record["contender"]: record for record in first_decodes(found)}
    mixtures = [
        record for name, record in records.items() if name not in (REFERENCE, "base", "peft_lora", EXACT)
    ]
    if mixtures:
        fastest = min(mixtures, key=lambda record: record["median_seconds"])
        yield f"{title_of(fastest)} decodes at {_against(found, fastest)}."
    if EXACT in records:
        yield f"{CONTENDERS[EXACT].title} (X-LoRA as published) decodes at {_against(found, records[EXACT])}."


def _against(found: Measurements, record: Record) -> str:
    ratio, ceiling = found.against(record), found.ceiling(record)
    assert ratio is not None
    text = f"{ratio.text()} times the speed of {ONE_LORA[0].lower()}{ONE_LORA[1:]}, one sequence"
    return text if ceiling is None else f"{text}; reading memory would allow {ceiling:.2f}"


def _generation(found: Measurements) -> Iterator[str]:
    for record in found.all("generation", contender=EXACT):
        ratio = found.against(record, PEFT_XLORA)
        assert ratio is not None
        yield (
            f"{CONTENDERS[EXACT].title} generates {record['new_tokens']} tokens after "
            f"{record['prompt_tokens']:,} {ratio.text('.1f')} times as fast as "
            f"{CONTENDERS[PEFT_XLORA].title}; {record['agreeing_tokens']} of {record['new_tokens']} "
            "tokens are the same."
        )


def _training(found: Measurements) -> Iterator[str]:
    for name in MIXED:
        record = found.find("training step", name, quantization="none")
        step = found.find("training step", LORA_STEP, quantization="none")
        if record and step:
            longer = record["median_seconds"] / step["median_seconds"]
            title = TRAINING[name].title
            yield (
                f"A training step ({title[0].lower()}{title[1:]}) takes {longer:.2f} times as long as one of "
                f"{TRAINING[LORA_STEP].title}."
            )


def _memory(found: Measurements) -> Iterator[str]:
    ours, theirs = (found.find("memory", name, work="generation") for name in (EXACT, PEFT_XLORA))
    if ours and theirs:
        sizes = [spread([size / 2**20 for size in record["bytes"]]).text(",.0f") for record in (ours, theirs)]
        yield (
            f"While generating, {CONTENDERS[EXACT].title[0].lower()}{CONTENDERS[EXACT].title[1:]} needs "
            f"{sizes[0]} MiB above the loaded model, {CONTENDERS[PEFT_XLORA].title} {sizes[1]} MiB."
        )
