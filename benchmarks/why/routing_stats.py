"""What a router does on each task: how decided it is, which experts it uses, and whether rightly."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ...experts.tasks import Example
from ...moe.mixture import MixtureForCausalLM
from .read_scalings import TokenScalings, layer_names, read_scalings


@dataclass(frozen=True)
class TaskRouting:
    """What a router does on the answer tokens of one task, layer by layer.

    Attributes:
        task: The task.
        tokens: Tokens from which a token of an answer is predicted, over all questions.
        experts: Names of the experts.
        layers: Names of the adapted linear layers, or one name for all.
        entropy: Mean entropy of a token's scalings over the experts, in nats: 0 where one expert has all, and
            the logarithm of the number of experts where all have the same.
        load: Mean scaling of each expert.
        agreement: Share of the tokens whose largest scaling is that of the task's own expert, ties in equal
            parts; None if the task has no expert.
    """

    task: str
    tokens: int
    experts: tuple[str, ...]
    layers: tuple[str, ...]
    entropy: Float[Tensor, " layer"]
    load: Float[Tensor, "layer expert"]
    agreement: Float[Tensor, " layer"] | None

    @property
    def mean_entropy(self) -> float:
        """Entropy over all layers, in nats."""
        return float(self.entropy.mean())

    @property
    def entropy_share(self) -> float:
        """The same as a share of its largest value, 0 to 1."""
        return self.mean_entropy / math.log(len(self.experts)) if len(self.experts) > 1 else 0.0

    @property
    def mean_load(self) -> list[float]:
        """Mean scaling of each expert over all layers."""
        return self.load.mean(dim=0).tolist()

    @property
    def effective_experts(self) -> float:
        """How many experts the task uses, over all its tokens and layers; see `effective_number`."""
        return effective_number(self.load.mean(dim=0))

    @property
    def mean_agreement(self) -> float | None:
        """Agreement over all layers, 0 to 1."""
        return None if self.agreement is None else float(self.agreement.mean())


def entropy(weights: Float[Tensor, "*batch expert"]) -> Float[Tensor, "*batch"]:
    """Shannon entropy of weights as shares of their sum, in nats; 0 where all weights are 0.

    Args:
        weights: Not negative; they need not sum to 1, as those of a router with a null expert do not.
    """
    total = weights.sum(dim=-1, keepdim=True)
    shares = weights / total.where(total > 0, torch.ones_like(total))
    return -torch.xlogy(shares, shares).sum(dim=-1)


def effective_number(load: Float[Tensor, " expert"]) -> float:
    """Number of equally used experts with the same entropy: exp(H), from 1 up (Hill 1973)."""
    return float(entropy(load).exp())


def routing_statistics(
    mixture: MixtureForCausalLM, questions: Mapping[str, Sequence[Example]]
) -> list[TaskRouting]:
    """Read questions of each task with a mixture and sum up its router's scalings.

    Args:
        mixture: A mixture with any router whose scalings are not negative.
        questions: Questions with their right answers, by task; a task's own expert has its name.

    Raises:
        FinLoraError: Scalings are negative, or no question of a task fits the base.
    """
    return [
        sum_up(mixture, task, list(read_scalings(mixture, examples))) for task, examples in questions.items()
    ]


def sum_up(mixture: MixtureForCausalLM, task: str, read: Sequence[TokenScalings]) -> TaskRouting:
    """Sum up what was read of one task's questions, as `routing_statistics` does."""
    scalings = torch.cat([one.scalings[one.predicts_answer] for one in read])
    experts = mixture.bank.expert_names
    agreement = None
    if task in experts:
        largest = (scalings == scalings.amax(dim=-1, keepdim=True)).float()
        agreement = (largest[..., experts.index(task)] / largest.sum(dim=-1)).mean(dim=0)
    return TaskRouting(
        task=task,
        tokens=len(scalings),
        experts=experts,
        layers=layer_names(mixture, scalings.shape[1]),
        entropy=entropy(scalings).mean(dim=0),
        load=scalings.mean(dim=0),
        agreement=agreement,
    )
