"""Greedy answers to many prompts.

By anything with `generate`: a base, a base with a LoRA adapter, a mixture.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

from .encoding import encode_prompts, pad_left, token_limit


@dataclass(frozen=True)
class Answers:
    """Predictions in the order of the prompts."""

    texts: list[str]
    """Decoded answers without white space around them; empty for prompts that were too long."""
    too_long: list[int]
    """Indices of prompts that, with their answer, would not fit the base; they were not run."""


def answer(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    contexts: Sequence[str],
    *,
    max_new_tokens: int | Sequence[int],
    batch_size: int = 32,
    progress: Callable[[int], object] | None = None,
) -> Answers:
    """Answer prompts greedily, in left-padded batches of similar length.

    Args:
        model: Anything with `config`, `generation_config` and `generate` of transformers; it is left in the
            mode (training or not) that it came in.
        tokenizer: The base's tokenizer, with a pad token.
        contexts: Prompts.
        max_new_tokens: Most tokens of an answer, or of each; an end-of-sequence token ends it earlier.
        batch_size: Most prompts run at once.
        progress: Called after each batch with its number of prompts, as `tqdm.update` expects.
    """
    prompts = encode_prompts(tokenizer, contexts)
    room = [max_new_tokens] * len(prompts) if isinstance(max_new_tokens, int) else list(max_new_tokens)
    limit = token_limit(model.config)
    too_long = [index for index, prompt in enumerate(prompts) if len(prompt) + room[index] > limit]
    # Longest first: memory runs out at once or never, and the time left is never underestimated.
    order = sorted(set(range(len(prompts))).difference(too_long), key=lambda i: (-len(prompts[i]), i))
    texts = [""] * len(prompts)
    was_training = model.training
    model.eval()
    try:
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            new_texts = _answer_batch(model, tokenizer, [prompts[i] for i in batch], [room[i] for i in batch])
            for index, text in zip(batch, new_texts, strict=True):
                texts[index] = text
            if progress is not None:
                progress(len(batch))
    finally:
        model.train(was_training)
    return Answers(texts, too_long)


def _answer_batch(
    model: Any, tokenizer: PreTrainedTokenizerBase, prompts: list[list[int]], room: Sequence[int]
) -> list[str]:
    device = next(model.parameters()).device
    pad_id: Any = tokenizer.pad_token_id
    input_ids = pad_left(prompts, pad_id).to(device)
    stop_ids = _stop_ids(model, tokenizer)
    output = model.generate(
        input_ids=input_ids,
        attention_mask=pad_left([[1] * len(prompt) for prompt in prompts], 0).to(device),
        max_new_tokens=max(room),
        # Instruct models ship sampling settings in their generation config; all of them are overruled here.
        do_sample=False,
        temperature=None,
        top_p=None,
        top_k=None,
        num_beams=1,
        eos_token_id=sorted(stop_ids) or None,
        pad_token_id=pad_id,
    )
    new_tokens = output[:, input_ids.shape[1] :].tolist()
    rows = [_until_stop(row[:most], stop_ids) for row, most in zip(new_tokens, room, strict=True)]
    return [text.strip() for text in tokenizer.batch_decode(rows, skip_special_tokens=True)]


def _stop_ids(model: Any, tokenizer: PreTrainedTokenizerBase) -> set[int]:
    configured = model.generation_config.eos_token_id
    ids = configured if isinstance(configured, list) else [configured]
    return {index for index in [*ids, tokenizer.eos_token_id] if index is not None}


def _until_stop(row: list[int], stop_ids: set[int]) -> list[int]:
    for position, token in enumerate(row):
        if token in stop_ids:
            return row[:position]
    return row
