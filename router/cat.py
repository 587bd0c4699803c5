"""CAT of LoRA Soups (Prabhakar et al. 2024, arXiv:2410.13025): one learned weight for each expert and layer.

delta W = sum over experts of w[layer, expert] B A. This is a mixture whose router gives every token the same
scalings, so it learns as any router does: next-token loss of the answers, base and experts frozen.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..experts.base_model import Base
from ..experts.run_folder import RunFolder, is_finished
from ..experts.tasks.task import Example
from ..moe.bank import ExpertBank
from ..moe.checkpoint import ROUTER_FILE, read_tensors
from ..moe.mixture import MixtureForCausalLM
from ..moe.routing import ConstantRouter
from .merge_settings import CatSettings
from .settings import RouterTrainingSettings
from .train import RESULT_FILE, train_router


class LearnedConstantRouter(ConstantRouter):
    """A constant router while it is trained; saved, it is an ordinary constant router."""

    def __init__(self, weights: Sequence[float] | Sequence[Sequence[float]] | Tensor):
        """Take the weights to start from, as `ConstantRouter` does."""
        super().__init__(weights)
        start = self.weights
        del self.weights
        self.weights = nn.Parameter(start)
        # A weight that is 0 may become another, so all experts are computed.
        self.most_chosen = None


def learn_cat(
    base: Base,
    bank: ExpertBank,
    examples_by_task: Mapping[str, Sequence[Example]],
    run: RunFolder,
    settings: CatSettings,
    *,
    progress: bool = True,
) -> tuple[Float[Tensor, "module expert"], dict[str, Any]]:
    """Learn the weights of CAT; repeat the call to resume it after an interruption.

    Args:
        base: The experts' base.
        bank: The experts.
        examples_by_task: A few examples of each task.
        run: The open folder of the merge.
        settings: How to train.
        progress: Whether to show a progress bar.

    Returns:
        The weights, in the bank's order, and what the merge's record says of the training.

    Raises:
        FinLoraError: As `train_router`.
    """
    folder = run.scratch / settings.method
    if not is_finished(folder, result=RESULT_FILE):
        start = torch.full((bank.module_count, bank.expert_count), 1 / bank.expert_count)
        mixture = MixtureForCausalLM.build(base, bank, LearnedConstantRouter(start))
        training = RouterTrainingSettings(**asdict(settings), cache_hidden_states=False)
        train_router(mixture, examples_by_task, folder, training, progress=progress)
    record = json.loads((folder / RESULT_FILE).read_text(encoding="utf-8"))
    weights = read_tensors(folder / ROUTER_FILE)["weights"]
    return weights, {key: record[key] for key in ("losses", "n_examples", "n_too_long")}
