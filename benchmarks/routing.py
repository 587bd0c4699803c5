"""Where a router puts its weight: mean scalings over the tokens of questions and of their answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from ..experts.atomic_write import write_json
from ..experts.encoding import Encoded, collate, encode_examples, prompt_lengths, token_limit
from ..experts.tasks import Example
from ..moe.mixture import MixtureForCausalLM

_BATCH_SIZE = 8


@torch.no_grad()
def mean_scalings(
    mixture: MixtureForCausalLM, tokenizer: PreTrainedTokenizerBase, examples: Sequence[Example]
) -> dict[str, list[float]]:
    """Average the scalings of each expert over tokens and adapted linear layers.

    Args:
        mixture: A mixture with any router.
        tokenizer: The base's tokenizer.
        examples: Questions with their right answers, which are read along; those too long for the base are
            left out.

    Returns:
        Mean weight of every expert, under `prompt` over the tokens that only read the question, under
        `answer` over the tokens from which the next token of the answer is predicted.
    """
    limit = token_limit(mixture.config)
    encoded = [one for one in encode_examples(tokenizer, examples) if len(one.input_ids) <= limit]
    sums = {tokens: torch.zeros(mixture.bank.expert_count) for tokens in ("prompt", "answer")}
    counts = dict.fromkeys(sums, 0.0)
    for start in range(0, len(encoded), _BATCH_SIZE):
        scalings, masks = _scalings_of_batch(mixture, encoded[start : start + _BATCH_SIZE])
        for tokens, mask in masks.items():
            sums[tokens] += (scalings * mask.unsqueeze(-1)).sum(dim=(0, 1)).cpu()
            counts[tokens] += float(mask.sum())
    return {tokens: (sums[tokens] / max(counts[tokens], 1.0)).tolist() for tokens in sums}


@torch.no_grad()
def run_batch(
    mixture: MixtureForCausalLM, encoded: Sequence[Encoded]
) -> tuple[dict[str, Tensor], Float[Tensor, "batch token module expert"]]:
    """Let a mixture read questions with their answers.

    Args:
        mixture: A mixture with any router.
        encoded: The questions.

    Returns:
        The batch that `collate` made of them, and its scalings; axes of size 1 hold for all.
    """
    batch = {name: tensor.to(mixture.device) for name, tensor in collate(encoded, pad_id=0).items()}
    kept, mixture.keeps_scalings = mixture.keeps_scalings, True
    try:
        mixture(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            prompt_lengths=prompt_lengths(batch["labels"]),
        )
    finally:
        mixture.keeps_scalings = kept
    assert mixture.last_scalings is not None
    return batch, mixture.last_scalings.float()


def _scalings_of_batch(
    mixture: MixtureForCausalLM, encoded: Sequence[Encoded]
) -> tuple[Float[Tensor, "batch token expert"], dict[str, Float[Tensor, "batch token"]]]:
    batch, all_scalings = run_batch(mixture, encoded)
    scalings = all_scalings.mean(dim=2)
    # The scalings of a token act on the prediction of the next one, so the answer begins one token early.
    in_answer = (batch["labels"] >= 0)[:, 1:]
    last = torch.zeros_like(in_answer[:, :1])
    answer = torch.cat([in_answer, last], dim=1).float()
    prompt = (batch["attention_mask"] > 0).float() - (batch["labels"] >= 0).float()
    prompt = (prompt - answer).clamp(min=0)
    return scalings.expand(*answer.shape, -1), {"prompt": prompt, "answer": answer}


def write_scalings(path: Path, maps: Mapping[str, Mapping[str, list[float]]]) -> None:
    """Write what `mean_scalings` returned for each task, by kind of token and task."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(
        path, {tokens: {task: one[tokens] for task, one in maps.items()} for tokens in ("prompt", "answer")}
    )
