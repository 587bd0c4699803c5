"""How questions are put to a model: as in the suite, in other words, with solved examples before them."""

from __future__ import annotations

import random
import re
import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace

from transformers import PreTrainedTokenizerBase

from ..experts.encoding import encode_prompts
from ..experts.errors import FinLoraError
from ..experts.tasks import Example
from .author_wordings import AUTHORS
from .instructions import INSTRUCTIONS, Instruction


def reworded(context: str) -> str:
    """The same question with its instruction in other words.

    Raises:
        FinLoraError: The question's instruction is unknown.
    """
    instruction = _known_instruction_of(context)
    return _with(instruction, instruction.reworded, context)


def by_other_authors(context: str) -> str:
    """The same question with its instruction in the words of one of several authors, as its text decides.

    Raises:
        FinLoraError: The question's instruction is unknown.
    """
    instruction = _known_instruction_of(context)
    author = zlib.crc32(context.encode()) % len(instruction.by_others)
    return _with(instruction, instruction.by_others[author], context)


def in_training_wordings(examples: Sequence[Example], *, authors: bool = False) -> list[Example]:
    """The same questions, of which each keeps its words or gets one of the wordings for training, in turn.

    None of them is a wording of a protocol. A question whose instruction is unknown stays.

    Args:
        examples: The questions.
        authors: Whether the wordings of ten authors are among them.
    """
    changed = []
    for number, example in enumerate(examples):
        instruction = _instruction_of(example.context)
        wordings = () if instruction is None else instruction.in_training
        if instruction is not None and authors:
            wordings += AUTHORS[instruction.name]
        turn = number % (len(wordings) + 1)
        if instruction is not None and turn:
            context = _with(instruction, wordings[turn - 1], example.context).lstrip()
            example = replace(example, context=context)
        changed.append(example)
    return changed


def _known_instruction_of(context: str) -> Instruction:
    instruction = _instruction_of(context)
    if instruction is None:
        raise FinLoraError(
            f"No rewording is known for a prompt that begins with {context[:60]!r}; add one to "
            "benchmarks/instructions.py, or leave the protocols reworded and other_authors out."
        )
    return instruction


def _instruction_of(context: str) -> Instruction | None:
    return next((one for one in INSTRUCTIONS if re.search(one.pattern, context, re.DOTALL)), None)


def _with(instruction: Instruction, words: str, context: str) -> str:
    return re.sub(instruction.pattern, words, context, count=1, flags=re.DOTALL)


def with_options_backwards(context: str) -> str:
    """The same question with the options between braces, divided by slashes, in reverse order."""
    return re.sub(
        r"\{([^{}]+/[^{}]+)\}",
        lambda found: "{" + "/".join(found[1].split("/")[::-1]) + "}",
        context,
        count=1,
    )


WAYS: dict[str, Callable[[str], str]] = {
    "": lambda context: context,
    "reworded": reworded,
    "other_authors": by_other_authors,
    "label_order": with_options_backwards,
    "mixed_batches": lambda context: context,
}
"""What is done to a question, by the `asking` of a scope."""


def with_examples(
    contexts: Sequence[str],
    solved: Sequence[Example],
    tokenizer: PreTrainedTokenizerBase,
    *,
    shots: int,
    limit: int,
    seed: int,
) -> list[str]:
    """Put solved examples before each question, as many as fit.

    Args:
        contexts: The questions.
        solved: Training examples, of which some are drawn, the same ones for all questions.
        tokenizer: The base's.
        shots: Most examples before a question.
        limit: Most tokens of a prompt.
        seed: Determines which are drawn.
    """
    drawn = random.Random(seed).sample(list(solved), min(shots, len(solved)))
    shown = [f"{one.context.rstrip()} {one.target}\n\n" for one in drawn]
    sizes = [len(ids) for ids in encode_prompts(tokenizer, shown)]
    prompts = []
    for context, own in zip(contexts, map(len, encode_prompts(tokenizer, contexts)), strict=True):
        room, parts = limit - own, []
        for text, size in zip(shown, sizes, strict=True):
            if size <= room:
                parts.append(text)
                room -= size
        prompts.append("".join([*parts, context]))
    return prompts
