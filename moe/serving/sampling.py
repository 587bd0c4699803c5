"""The next token of each request of a batch, each by its own settings and its own random numbers."""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ...experts.errors import FinLoraError
from .requests import GenerationRequest

logger = logging.getLogger(__name__)

LEAST_TEMPERATURE = 1e-6
"""Below it a request is greedy in any case, and 32 bits could not hold the temperature."""


@dataclass
class Sampling:
    """What one request needs from token to token."""

    request: GenerationRequest
    generator: torch.Generator = field(default_factory=torch.Generator)

    def __post_init__(self) -> None:
        """Seed its random numbers, which no other request draws from."""
        if self.request.seed is None:
            self.generator.seed()
        else:
            self.generator.manual_seed(self.request.seed)


@dataclass(frozen=True)
class Choice:
    """A token that was chosen, with what the request wants to know of it."""

    token: int
    logprob: float | None = None
    top_logprobs: dict[int, float] = field(default_factory=dict)
    finite: bool = True
    """False if the model's numbers were not; the token means nothing then."""
    problem: str | None = None
    """One sentence where no token could be chosen; the token means nothing then."""


def choose(logits: Float[Tensor, "row vocabulary"], samplings: Sequence[Sampling]) -> list[Choice]:
    """Choose the next token of each row.

    Args:
        logits: Of the last token of each request.
        samplings: One for each row; constraints take note of what was chosen.
    """
    finite = torch.isfinite(logits).all(dim=-1).tolist()
    likeliest = logits.argmax(dim=-1).tolist()
    choices = []
    for row, (sampling, is_finite, token) in enumerate(zip(samplings, finite, likeliest, strict=True)):
        request = sampling.request
        plain = request.temperature == 0 and request.constraint is None and request.top_logprobs is None
        if not is_finite or plain:
            choices.append(Choice(token, finite=is_finite))
        else:
            choices.append(_choose_or_explain(logits[row], sampling))
    return choices


def _choose_or_explain(logits: Float[Tensor, " vocabulary"], sampling: Sampling) -> Choice:
    """Choose a token; whatever a grammar of the user's does harms no other request of the batch."""
    try:
        return _choose_one(logits, sampling)
    except Exception as error:
        logger.info("no token could be chosen", exc_info=True)
        return Choice(0, problem=f"No next token could be chosen: {error}.")


def _choose_one(logits: Float[Tensor, " vocabulary"], sampling: Sampling) -> Choice:
    request = sampling.request
    if request.constraint is not None:
        allowed = request.constraint.allowed().to(logits.device)
        logits = logits.masked_fill(~allowed[: len(logits)], -math.inf)
        if not bool(allowed.any()):
            raise FinLoraError("the grammar allows none")
    token = int(logits.argmax())
    if request.temperature > 0:
        # The largest is 0, so that no temperature makes numbers that are not finite of the likeliest tokens.
        token = _draw((logits - logits.max()) / max(request.temperature, LEAST_TEMPERATURE), sampling)
    if request.constraint is not None:
        request.constraint.accept(token)
    if request.top_logprobs is None:
        return Choice(token)
    logprobs = torch.log_softmax(logits, dim=-1)
    top = logprobs.topk(min(request.top_logprobs, len(logprobs)))
    likeliest = dict(zip(top.indices.tolist(), top.values.tolist(), strict=True))
    return Choice(
        token, float(logprobs[token]), {one: value for one, value in likeliest.items() if value > -math.inf}
    )


def _draw(logits: Float[Tensor, " vocabulary"], sampling: Sampling) -> int:
    """Draw from what `top_k` and `top_p` leave, on the CPU, where seeds mean the same everywhere."""
    request = sampling.request
    values, tokens = logits.cpu().sort(descending=True)
    probabilities = torch.softmax(values, dim=-1)
    kept = _kept(probabilities, request)
    place = torch.multinomial(probabilities[:kept], 1, generator=sampling.generator)
    return int(tokens[place])


def _kept(probabilities: Float[Tensor, " vocabulary"], request: GenerationRequest) -> int:
    kept = len(probabilities)
    if request.top_k:
        kept = min(kept, request.top_k)
    if request.top_p < 1:
        before = probabilities.cumsum(0) - probabilities
        kept = min(kept, max(1, int((before < request.top_p).sum())))
    return kept


def tokens_of(choices: Sequence[Choice], device: torch.device) -> Int[Tensor, " row"]:
    """Return the chosen tokens as the cache's loop wants them."""
    return torch.tensor([one.token for one in choices], dtype=torch.int32, device=device)
