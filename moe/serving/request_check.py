"""Whether a request's numbers make sense, before anything is spent on it."""

import math
from collections.abc import Mapping

from transformers import PreTrainedModel

from .requests import GenerationRequest, InvalidRequestError

MOST_LOGPROBS = 20
LARGEST_WEIGHT = 100.0


def check_request(request: GenerationRequest, model: PreTrainedModel) -> None:
    """Check every field that a user sets.

    Raises:
        InvalidRequestError: That names the first wrong field, what was given and what is allowed.
    """
    config = model.config.get_text_config(decoder=True)
    _check_lengths(request, config.max_position_embeddings)
    wrong = [token for token in request.prompt_ids if not 0 <= token < config.vocab_size]
    if wrong:
        _refuse("prompt_ids", wrong[0], f"token ids from 0 to {config.vocab_size - 1:,}")
    if not 0 <= request.temperature <= LARGEST_WEIGHT:
        _refuse("temperature", request.temperature, f"0 to {LARGEST_WEIGHT:g}")
    if not 0 < request.top_p <= 1:
        _refuse("top_p", request.top_p, "more than 0 and at most 1")
    if request.top_k < 0:
        _refuse("top_k", request.top_k, "0 for all tokens, or more")
    if request.seed is not None and not -(2**63) <= request.seed < 2**63:
        _refuse("seed", request.seed, "64-bit integers")
    if request.top_logprobs is not None and not 0 <= request.top_logprobs <= MOST_LOGPROBS:
        _refuse("top_logprobs", request.top_logprobs, f"0 to {MOST_LOGPROBS}")
    if request.deadline_seconds is not None and not 0 < request.deadline_seconds < math.inf:
        _refuse("deadline_seconds", request.deadline_seconds, "more than 0 seconds")
    if isinstance(request.model, Mapping):
        _check_weights(request.model)


def _check_lengths(request: GenerationRequest, most: int) -> None:
    if not request.prompt_ids:
        _refuse("prompt_ids", "nothing", "at least one token")
    if request.max_new_tokens < 1:
        _refuse("max_new_tokens", request.max_new_tokens, "at least 1")
    total = len(request.prompt_ids) + request.max_new_tokens
    if total > most:
        raise InvalidRequestError(
            "max_new_tokens",
            f"The prompt has {len(request.prompt_ids):,} tokens and max_new_tokens is "
            f"{request.max_new_tokens:,}, together more than the {most:,} that the base can take; shorten "
            "one of them.",
        )


def _check_weights(weights: Mapping[str, float]) -> None:
    if not weights:
        _refuse("model", "no experts", "at least one expert with its weight")
    for name, weight in weights.items():
        if not abs(weight) <= LARGEST_WEIGHT:
            _refuse(
                "model", f"{weight} for {name}", f"weights from -{LARGEST_WEIGHT:g} to {LARGEST_WEIGHT:g}"
            )


def _refuse(parameter: str, given: object, allowed: str) -> None:
    raise InvalidRequestError(parameter, f"{parameter} was {given}; allowed: {allowed}.")
