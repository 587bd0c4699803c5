"""Let a router learn whose expert an example belongs to, before it is trained on the answers.

Its inputs are the stored hidden states of the scaling pass, so a step costs a pass through the router alone:
hundreds of such steps take seconds, where a step on the answers takes a pass through the whole mixture.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..experts.encoding import Encoded
from .hidden_state_cache import HiddenStateCache
from .settings import RouterTrainingSettings
from .xlora import XLoRARouter

TOKENS_A_STEP = 1024
_LEARNING_RATE = 3e-3


def warm_up(
    router: XLoRARouter,
    encoded: Sequence[Encoded],
    tasks: Sequence[int],
    cache: HiddenStateCache,
    settings: RouterTrainingSettings,
) -> None:
    """Train for `label_steps` steps on the cross entropy between tokens' scalings and their task's expert.

    Half of the tokens of a step are those from which an answer's tokens are predicted; in either half all
    tasks are drawn alike.

    Args:
        router: Trained in place.
        encoded: The examples.
        tasks: Number of the expert of each example's task.
        cache: Hidden states of the examples.
        settings: `label_steps` and `seed` are used.
    """
    answering = torch.cat([_predicts_answer(example) for example in encoded])
    lengths = torch.tensor([len(example.input_ids) for example in encoded])
    labels = torch.tensor(tasks).repeat_interleave(lengths)
    pools = [_even_weights(labels, answering), _even_weights(labels, ~answering)]
    generator = torch.Generator().manual_seed(settings.seed)
    optimizer = torch.optim.AdamW(router.parameters(), lr=_LEARNING_RATE)
    router.train()
    for step in range(settings.label_steps):
        for group in optimizer.param_groups:
            group["lr"] = _LEARNING_RATE * (1 - step / settings.label_steps)
        drawn = torch.cat(
            [
                torch.multinomial(pool, TOKENS_A_STEP // 2, replacement=True, generator=generator)
                for pool in pools
            ]
        )
        loss = label_loss(router, cache.states[drawn], labels[drawn])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    router.eval()


def label_loss(
    router: XLoRARouter, hidden: Float[Tensor, "token d_model"], labels: Int[Tensor, " token"]
) -> Float[Tensor, ""]:
    """Return the mean cross entropy, over tokens and modules, of the scalings against the right experts."""
    device = next(router.parameters()).device
    logits = router.logits(hidden[None].to(device))[0] / router.settings.temperature
    log_shares = torch.log_softmax(logits.float(), dim=-1)
    right = labels.to(device).view(-1, 1, 1).expand(-1, log_shares.shape[1], 1)
    return -log_shares.gather(-1, right).mean()


def _predicts_answer(example: Encoded) -> Tensor:
    inside = torch.tensor([*example.completion_mask[1:], 0])
    return inside.bool()


def _even_weights(labels: Int[Tensor, " token"], chosen: Tensor) -> Float[Tensor, " token"]:
    """Return weights that draw the chosen tokens only, and every task with the same chance."""
    counts = torch.bincount(labels[chosen], minlength=int(labels.max()) + 1).clamp(min=1)
    return chosen / counts[labels]
