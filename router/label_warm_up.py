"""Let a router learn whose expert an example belongs to, before it is trained on the answers.

Its inputs are the stored hidden states of the scaling pass, so a step costs a pass through the router alone:
hundreds of such steps take seconds, where a step on the answers takes a pass through the whole mixture.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ..experts.encoding import Encoded
from ..moe.routing import Attend
from .hidden_state_cache import HiddenStateCache
from .settings import RouterTrainingSettings
from .xlora import XLoRARouter

EXAMPLES_A_STEP = 16
_LEARNING_RATE = 2e-3


def warm_up(
    router: XLoRARouter,
    encoded: Sequence[Encoded],
    tasks: Sequence[int],
    cache: HiddenStateCache,
    settings: RouterTrainingSettings,
    *,
    attend: Attend | None = None,
) -> None:
    """Train for `label_steps` steps on the cross entropy between tokens' scalings and their task's expert.

    All tasks are drawn alike, and the tokens from which answers are predicted weigh as much as all others.

    Args:
        router: Trained in place.
        encoded: The examples.
        tasks: Number of the expert of each example's task.
        cache: Hidden states of the examples.
        settings: `label_steps`, `prompt_dropout` and `seed` are used.
        attend: Looks back, for a router with a `context_width`.
    """
    counts = torch.bincount(torch.tensor(tasks))
    weights = torch.tensor([1 / counts[task] for task in tasks])
    generator = torch.Generator().manual_seed(settings.seed)
    optimizer = torch.optim.AdamW(router.parameters(), lr=_LEARNING_RATE)
    router.train()
    for step in range(settings.label_steps):
        for group in optimizer.param_groups:
            group["lr"] = _LEARNING_RATE * (1 - step / settings.label_steps)
        drawn = torch.multinomial(weights, EXAMPLES_A_STEP, replacement=True, generator=generator).tolist()
        masks = [torch.tensor(encoded[i].completion_mask) for i in drawn]
        states = [cache[i] for i in drawn]
        if settings.prompt_dropout:
            seen = [kept_tokens(mask, settings.prompt_dropout, generator) for mask in masks]
            masks = [mask[kept] for mask, kept in zip(masks, seen, strict=True)]
            states = [rows[kept] for rows, kept in zip(states, seen, strict=True)]
        losses, predicts = _losses(router, masks, [tasks[i] for i in drawn], states, attend)
        loss = (losses[predicts].mean() + losses[~predicts].mean()) / 2
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    router.eval()


def kept_tokens(
    completion_mask: Int[Tensor, " token"], dropout: float, generator: torch.Generator
) -> Bool[Tensor, " token"]:
    """Draw which tokens of an example a router sees: all of the answer, and those of the prompt by chance.

    Args:
        completion_mask: 1 for the answer's tokens, 0 for the prompt's.
        dropout: Mean share that is hidden; the example's own is drawn between 0 and twice as much.
        generator: Of the draws.
    """
    hidden = 2 * dropout * torch.rand(1, generator=generator)
    kept = torch.rand(len(completion_mask), generator=generator) >= hidden
    # The answer's first token is predicted from the prompt's last.
    return kept | (completion_mask == 1) | (completion_mask.roll(-1) == 1)


def _losses(
    router: XLoRARouter,
    completion_masks: Sequence[Tensor],
    tasks: Sequence[int],
    states: Sequence[Tensor],
    attend: Attend | None,
) -> tuple[Float[Tensor, " token"], Bool[Tensor, " token"]]:
    """Return the loss of each token of a batch, and whether an answer's token is predicted from it."""
    device = next(router.parameters()).device
    # Padding comes last, so that no token looks back at it.
    hidden = pad_sequence(list(states), batch_first=True).to(device)
    mask = pad_sequence([torch.ones(len(rows), dtype=torch.bool) for rows in states], batch_first=True)
    logits = router.logits(hidden, attend)[mask] / router.settings.temperature
    labels = torch.tensor(tasks).repeat_interleave(mask.sum(dim=1)).to(device)
    predicts = torch.cat([torch.cat([one[1:], one.new_zeros(1)]) for one in completion_masks]).bool()
    return label_losses(torch.log_softmax(logits.float(), dim=-1), labels), predicts.to(device)


def label_losses(
    log_shares: Float[Tensor, "token module slot"], labels: Int[Tensor, " token"]
) -> Float[Tensor, " token"]:
    """Return the cross entropy of the scalings against the right experts, averaged over modules.

    Args:
        log_shares: Logarithms of the softmax over the slots.
        labels: Number of the right expert of each token.
    """
    right = labels.view(-1, 1, 1).expand(-1, log_shares.shape[1], 1)
    return -log_shares.gather(-1, right).squeeze(-1).mean(dim=-1)
