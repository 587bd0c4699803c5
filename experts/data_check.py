"""What is noteworthy about a file of examples before hours are spent on it. Changes nothing."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from transformers import PretrainedConfig, PreTrainedTokenizerBase

from .encoding import encode_examples, token_limit
from .tasks.task import Example, Task


@dataclass(frozen=True)
class DataCheck:
    """Counts over a set of examples; all but the first four should be 0."""

    examples: int
    groups: int
    """Groups that are drawn together for an interval; an example without one stands alone."""
    median_tokens: float
    """Of prompt and answer together."""
    longest_tokens: int
    too_long: int
    """Examples that do not fit the base; training leaves them out, and evaluation counts them as wrong."""
    contradictions: int
    """Prompts that occur with different answers."""
    unreachable: int
    """Answers longer than the task lets a model generate, so no model can give them in full."""


def check_examples(
    examples: Sequence[Example],
    tokenizer: PreTrainedTokenizerBase,
    config: PretrainedConfig,
    task: Task | None,
) -> DataCheck:
    """Count what training or scoring would trip over.

    Args:
        examples: At least one.
        tokenizer: The base's.
        config: The base's.
        task: Whose limit the answers must keep; None skips that check.
    """
    encoded = encode_examples(tokenizer, examples)
    lengths = [len(row.input_ids) for row in encoded]
    answers = Counter(context for context, _ in {(example.context, example.target) for example in examples})
    limit = token_limit(config)
    return DataCheck(
        examples=len(examples),
        groups=len({example.group or f"\n{index}" for index, example in enumerate(examples)}),
        median_tokens=median(lengths),
        longest_tokens=max(lengths),
        too_long=sum(length > limit for length in lengths),
        contradictions=sum(count > 1 for count in answers.values()),
        # A model also needs to generate the end of sequence, which the completion contains.
        unreachable=sum(
            task is not None and sum(row.completion_mask) > task.max_new_tokens for row in encoded
        ),
    )
