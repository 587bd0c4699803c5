"""How questions are put to a model: as in the suite, in other words, with solved examples before them."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence

from transformers import PreTrainedTokenizerBase

from ..experts.encoding import encode_prompts
from ..experts.errors import FinLoraError
from ..experts.tasks import Example

Rules = Sequence[tuple[str, str]]

REWORDINGS: Rules = (
    (
        r"XBRL tag extraction\. Answer with the US GAAP tag only\.",
        "Find the US GAAP tag that is asked for and give nothing else.",
    ),
    (
        r"XBRL value extraction\. Answer with the number only\.",
        "Find the number that is asked for and give nothing else.",
    ),
    (
        r"XBRL formula construction\. Answer with a formula of US GAAP tags only\.",
        "Write the formula that is asked for with US GAAP tags and give nothing else.",
    ),
    (
        r"XBRL formula calculation\. Answer with a formula substituted with values only\.",
        "Write the formula that is asked for with its values in place and give nothing else.",
    ),
    (
        r"What is the best us gaap tag for entity (\".*?\") in sentence: ",
        r"Choose the us gaap tag that fits the entity \1 best in this sentence: ",
    ),
    (
        r"Explain this XBRL term briefly in one sentence: (.*?)\.? Answer:",
        r"In one short sentence, what does this XBRL term mean: \1. Answer:",
    ),
    (
        r"What is the sentiment of this (news|tweet)\? Please choose an answer from ",
        r"How does this \1 sound? Choose one of ",
    ),
    (
        r"Does the news headline (.*?)\? Please choose an answer from ",
        r"Say whether this holds for the headline: does it \1? Choose one of ",
    ),
    (
        # Seventeen wordings, of which none begins like this.
        r"Instruction: ([^\n]*)\nOptions: ",
        r"Instruction: Classify one entity. \1\nTypes to choose from: ",
    ),
    (
        r"Use formula (.*?) to answer the question\. Answer with a numerical answer with 2 decimal places "
        r"and with no explanations or other text\.",
        r"Answer the question by means of the formula \1. Give a number with 2 decimal places and no more.",
    ),
    (
        r"Answer the following question very briefly using scanned text from pages\. No explanation needed\.",
        "Use the scanned pages to answer this question in very few words, without an explanation.",
    ),
    (
        r"Choose the right answer\. Answer with the exact letter and choice text and no explanations\.",
        "Which choice is right? Give its exact letter and text and nothing else.",
    ),
)
"""What instructions of the suites' prompts become; the first that fits a prompt is used."""


def reworded(context: str) -> str:
    """The same question with its instruction in other words.

    Raises:
        FinLoraError: No rewording fits the question.
    """
    for pattern, replacement in REWORDINGS:
        changed, count = re.subn(pattern, replacement, context, count=1, flags=re.DOTALL)
        if count:
            return changed
    raise FinLoraError(
        f"No rewording is known for a prompt that begins with {context[:60]!r}; add one to REWORDINGS, or "
        "leave the protocol reworded out."
    )


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
