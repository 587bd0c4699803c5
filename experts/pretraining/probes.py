"""What a base must be able to do before experts are worth training on it: copy, and look numbers up by name.

Every probe counts answers whose tokens are all the most likely ones, given the tokens before. Companies come
from the test names, facts from seeds that pretraining does not use.
"""

import random
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from ..filings.concepts import CONCEPTS
from ..filings.invented import invent_company
from .corpus import repeated_document
from .look_ups import Document

_SEED = 20_260_101


@dataclass(frozen=True)
class Probe:
    """Accuracy of one probe."""

    name: str
    accuracy: float
    """Share of answers that are right in every token, 0 to 1."""
    answers: int


def run_probes(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, documents: int = 64
) -> list[Probe]:
    """Run copying at random gaps, and look-up by us-gaap name and by label among 2, 4 and 8 facts."""
    probes = [
        _probe(
            "copy at random gaps", model, tokenizer, [repeated_document(_state(i)) for i in range(documents)]
        )
    ]
    for key in ("name", "label"):
        for facts in (2, 4, 8):
            texts = [look_up_document(_state(i), facts, key) for i in range(documents)]
            probes.append(_probe(f"look-up by {key}, {facts} facts", model, tokenizer, texts))
    return probes


def _state(index: int) -> random.Random:
    return random.Random(_SEED + index)


def look_up_document(random_state: random.Random, facts: int, key: str) -> Document:
    """XBRL facts, then three of them asked for in a sentence; pieces of weight 1 are the answers."""
    company = invent_company("test", random_state)
    tags = random_state.sample(sorted(company.facts), facts)
    document: Document = [("".join(f"<us-gaap:{tag}>{company.facts[tag]}</>\n" for tag in tags), 0.0)]
    for tag in random_state.sample(tags, min(2, facts)):
        name = f"us-gaap:{tag}" if key == "name" else CONCEPTS[tag].label
        document += [
            (f"The value of {name} of {company.name} was ", 0.0),
            (company.facts[tag], 1.0),
            (".\n", 0.0),
        ]
    return document


@torch.inference_mode()
def _probe(
    name: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, documents: list[Document]
) -> Probe:
    right = answers = 0
    for document in documents:
        ids, spans = _encode(tokenizer, document)
        predicted = model(input_ids=torch.tensor([ids], device=model.device)).logits[0].argmax(-1).tolist()
        right += sum(predicted[start - 1 : end - 1] == ids[start:end] for start, end in spans)
        answers += len(spans)
    return Probe(name, right / answers, answers)


def _encode(
    tokenizer: PreTrainedTokenizerFast, document: Document
) -> tuple[list[int], list[tuple[int, int]]]:
    """Return token ids and the half-open spans of the pieces of weight 1."""
    begin: Any = tokenizer.bos_token_id
    ids, spans = [begin], []
    for text, weight in document:
        piece = tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids
        if weight == 1.0:
            spans.append((len(ids), len(ids) + len(piece)))
        ids += piece
    return ids, spans
