"""LoraHub (Huang et al. 2023, arXiv:2307.13269): one weight for each expert, found without gradients.

nevergrad tries weights; what counts is the next-token loss of a few answers plus a penalty on the weights'
magnitudes. Three things differ from the authors' code: the weights multiply delta W, not A and B apart, where
each would count twice and experts would meet each other's matrices; the loss is the mean over all tokens of
the answers; and the penalty is the paper's sum of magnitudes, not their mean.
"""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ..experts.base_model import Base
from ..experts.encoding import collate, encode_examples, token_limit
from ..experts.errors import FinLoraError
from ..experts.run_folder import RunFolder
from ..experts.tasks.task import Example
from ..experts.training import answer_loss
from ..moe.bank import ExpertBank
from ..moe.mixture import MixtureForCausalLM
from ..moe.routing import ConstantRouter
from .merge_settings import LoraHubSettings


def learn_lorahub(
    base: Base,
    bank: ExpertBank,
    examples_by_task: Mapping[str, Sequence[Example]],
    run: RunFolder,
    settings: LoraHubSettings,
    *,
    progress: bool = True,
) -> tuple[Float[Tensor, "1 expert"], dict[str, Any]]:
    """Search the weights of LoraHub; equal seeds give equal weights.

    Args:
        base: The experts' base.
        bank: The experts.
        examples_by_task: A few examples; the authors took five of one task.
        run: Not used, since the search is too short to be resumed.
        settings: How to search.
        progress: Not used.

    Returns:
        The weights, for all layers, and what the merge's record says of the search.

    Raises:
        FinLoraError: If nevergrad is not installed, or no example fits the base.
    """
    batches, counts = _batches(base, examples_by_task, settings.batch_size)
    router = ConstantRouter.uniform(expert_count=bank.expert_count)
    mixture = MixtureForCausalLM.build(base, bank, router)
    tried = []

    @torch.no_grad()
    def objective(weights: Any) -> float:
        router.weights.copy_(torch.as_tensor(weights, dtype=torch.float32).view(1, -1))
        n_labels = sum(int((batch["labels"][:, 1:] >= 0).sum()) for batch in batches)
        head: Any = mixture.get_output_embeddings()
        losses = [float(answer_loss(mixture, head, batch, n_labels=n_labels)) for batch in batches]
        tried.append(sum(losses))
        return sum(losses) + settings.penalty * float(router.weights.abs().sum())

    best = _search(objective, bank.expert_count, settings)
    objective(best)
    return router.weights.clone(), counts | {"first_loss": tried[0], "loss": tried[-1]}


def _search(objective: Any, expert_count: int, settings: LoraHubSettings) -> Any:
    try:
        import nevergrad
    except ImportError as error:
        raise FinLoraError(
            "LoraHub needs nevergrad, which is not installed; run `pip install finlora[merge]`."
        ) from error
    space = nevergrad.p.Array(init=[0.0] * expert_count, lower=-settings.bound, upper=settings.bound)
    space.random_state.seed(settings.seed)
    with warnings.catch_warnings():
        # nevergrad 1.0.12 leaves SciPy's Cobyla an end radius that it replaces by its own default.
        warnings.filterwarnings("ignore", "COBYLA: Invalid RHOEND", UserWarning)
        optimizer = nevergrad.optimizers.NGOpt(parametrization=space, budget=settings.steps)
        return optimizer.minimize(objective).value


def _batches(
    base: Base, examples_by_task: Mapping[str, Sequence[Example]], batch_size: int
) -> tuple[list[dict[str, Tensor]], dict[str, dict[str, int]]]:
    limit = token_limit(base.model.config)
    fitting, counts = [], {"n_examples": {}, "n_too_long": {}}
    for task, rows in examples_by_task.items():
        encoded = [row for row in encode_examples(base.tokenizer, rows) if len(row.input_ids) <= limit]
        fitting += encoded
        counts["n_examples"][task], counts["n_too_long"][task] = len(encoded), len(rows) - len(encoded)
    if not fitting:
        raise FinLoraError(
            f"LoraHub needs at least one example that fits the {limit} tokens of the base {base.name}."
        )
    fitting.sort(key=lambda row: len(row.input_ids))
    pad_id: Any = base.tokenizer.pad_token_id
    batches = [
        collate(fitting[start : start + batch_size], pad_id) for start in range(0, len(fitting), batch_size)
    ]
    device = base.model.device
    return [{key: value.to(device) for key, value in batch.items()} for batch in batches], counts
