"""What a bank does between two messages: some steps on its own records, with or without privacy.

With a `PrivacyPlan` the steps are DP-SGD's on single records: Opacus computes each record's gradient, clips
it and sums; the noise comes from the operating system; the ledger on the bank's disk is charged before each
step. Start reading at `train_locally`.
"""

import dataclasses
import math
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..encoding import IGNORED_LABEL, Encoded, collate
from ..errors import FinLoraError
from .accounting import PrivacyPlan
from .ledger import Ledger
from .randomness import Randomness, draw_batch


@dataclass(frozen=True, kw_only=True)
class LocalTraining:
    """How a bank trains in one round."""

    steps: int = 4
    """Optimizer steps of a round."""
    batch_size: int = 64
    """Records of a step on average: each is drawn on its own (Poisson sampling)."""
    learning_rate: float = 5e-3
    """Step size in the first round."""
    final_learning_rate: float = 0.1
    """Share of the step size that is left in the last round; it falls along a cosine."""
    optimizer: Literal["adam", "sgd"] = "adam"
    """Fresh in each round, so that a bank that missed some rounds trains like the others."""
    clip_norm: float = 1.0
    """Greatest length of one record's gradient with privacy, of the batch's mean gradient without."""
    micro_batch: int = 24
    """Records that go through the model at once; does not change the result."""

    def __post_init__(self) -> None:
        """Reject settings that no bank could follow."""
        for name in ("steps", "batch_size", "micro_batch"):
            if getattr(self, name) < 1:
                raise FinLoraError(f"{name} must be at least 1, got {getattr(self, name)}.")
        for name in ("learning_rate", "clip_norm"):
            if not 0 < getattr(self, name) < math.inf:
                raise FinLoraError(f"{name} must be above 0, got {getattr(self, name)}.")
        if not 0 <= self.final_learning_rate <= 1:
            raise FinLoraError(f"final_learning_rate is a share, got {self.final_learning_rate}.")

    def in_round(self, number: int, rounds: int) -> "LocalTraining":
        """Return the settings of one round, whose step size has fallen along a cosine.

        Args:
            number: Rounds before this one.
            rounds: Rounds of the whole run.
        """
        share = number / max(1, rounds - 1)
        low = self.final_learning_rate
        factor = low + (1 - low) * (1 + math.cos(math.pi * share)) / 2
        return dataclasses.replace(self, learning_rate=self.learning_rate * factor)


@dataclass(frozen=True)
class LocalResult:
    """What a bank learned in one round."""

    update: dict[str, np.ndarray]
    """Name of each trained tensor as in `named_parameters` -> float32 difference, after minus before."""
    steps: int
    """Steps taken, those without any record too."""
    seconds: float
    """Time they took."""
    loss: float | None
    """Mean loss of the records drawn; None with privacy, since it is not private."""


def train_locally(
    model: torch.nn.Module,
    examples: Sequence[Encoded],
    settings: LocalTraining,
    *,
    pad_id: int,
    plan: PrivacyPlan | None = None,
    ledger: Ledger | None = None,
    randomness: Randomness | None = None,
) -> LocalResult:
    """Train for one round and return by how much the trained tensors changed.

    Args:
        model: A causal language model whose trained tensors, and no others, have `requires_grad`; each is the
            float32 weight of a linear layer, as LoRA's are. It is changed in place.
        examples: The bank's records.
        settings: How to train; `settings.in_round` says it for one round.
        pad_id: Token that fills rows up.
        plan: Noise of the whole run; None trains without privacy.
        ledger: The bank's ledger, charged before each private step.
        randomness: Source of choice of records and noise; by default the operating system.

    Raises:
        FinLoraError: If there are no records or nothing to train, or a trained tensor is none of a linear
            layer's.
        BudgetError: If the round would exceed the ledger's budget; nothing was trained.
    """
    trained = _trained_parameters(model)
    if not examples:
        raise FinLoraError("A bank without any record cannot train; leave it out of the run.")
    if plan and ledger:
        ledger.admit(plan, settings.steps)
    randomness = randomness or Randomness.system()
    before = {name: parameter.detach().clone() for name, parameter in trained.items()}
    optimizer = _optimizer(list(trained.values()), settings)
    started = time.monotonic()
    rate = plan.sample_rate if plan else min(1.0, settings.batch_size / len(examples))
    was_training = model.training
    model.train()
    try:
        with _stepper(model, optimizer, settings, plan, randomness, rate * len(examples)) as step:
            losses = []
            for _ in range(settings.steps):
                if plan and ledger:
                    ledger.charge(plan.noise_multiplier, plan.sample_rate)
                drawn = [examples[index] for index in draw_batch(randomness, len(examples), rate)]
                losses += step(_micro_batches(drawn, settings.micro_batch, pad_id, _device(trained)))
    finally:
        model.train(was_training)
    update = {
        name: (parameter.detach() - before[name]).cpu().numpy().astype(np.float32)
        for name, parameter in trained.items()
    }
    loss = None if plan or not losses else sum(losses) / len(losses)
    return LocalResult(update, settings.steps, time.monotonic() - started, loss)


def record_losses(model: torch.nn.Module, batch: dict[str, Tensor]) -> Float[Tensor, " record"]:
    """Return each record's loss: the mean over its answer's tokens.

    The output layer runs on the tokens of answers only, as in `training.answer_loss`. That one weighs records
    by their lengths, so there the gradient of one record depends on who else is in the batch.

    Args:
        model: A causal language model, possibly wrapped by PEFT.
        batch: As `encoding.collate` makes it.
    """
    labels = batch["labels"][:, 1:]
    labelled = labels != IGNORED_LABEL
    head: Any = model.get_output_embeddings()  # pyright: ignore[reportCallIssue]
    hook = head.register_forward_pre_hook(lambda _module, arguments: (arguments[0][:, :-1][labelled],))
    try:
        logits = model(
            input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False
        ).logits
    finally:
        hook.remove()
    losses = torch.nn.functional.cross_entropy(logits.float(), labels[labelled], reduction="none")
    rows = labelled.nonzero()[:, 0]
    sums = losses.new_zeros(len(labels)).index_add(0, rows, losses)
    return sums / labelled.sum(dim=1).clamp(min=1)


Step = Callable[[Sequence[dict[str, Tensor]]], list[float]]
"""Takes the micro-batches of one step, none if no record was drawn; returns the losses of the records."""


@contextmanager
def _stepper(
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    settings: LocalTraining,
    plan: PrivacyPlan | None,
    randomness: Randomness,
    expected: float,
) -> Iterator[Step]:
    """Give the function that takes a step, private or not, and remove what it put on the model.

    Args:
        model: What is trained.
        optimizer: Of its trained tensors.
        settings: How to train.
        plan: The noise, or None.
        randomness: Source of the noise.
        expected: Records of a step on average, which sums are divided by: the size of a batch as drawn tells
            who is in it.
    """
    if plan is None:
        yield lambda batches: _plain_step(model, optimizer, batches, settings.clip_norm)
        return
    private, hooks = _with_opacus(model, optimizer, settings, plan, randomness, expected)
    try:
        yield lambda batches: _private_step(model, private, batches)
    finally:
        hooks.remove_hooks()
        hooks.cleanup()
        for parameter in model.parameters():
            for name in ("grad_sample", "summed_grad", "grad_sample_stack"):
                if name in parameter.__dict__:
                    delattr(parameter, name)


def _plain_step(
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Sequence[dict[str, Tensor]],
    clip_norm: float,
) -> list[float]:
    count = sum(len(batch["labels"]) for batch in batches)
    optimizer.zero_grad()
    losses = []
    for batch in batches:
        each = record_losses(model, batch)
        (each.sum() / count).backward()
        losses += each.tolist()
    # Without a record there is no gradient, and Adam would go on along its old direction.
    if batches:
        torch.nn.utils.clip_grad_norm_(optimizer.param_groups[0]["params"], clip_norm)
        optimizer.step()
    return losses


def _private_step(
    model: torch.nn.Module, optimizer: Any, batches: Sequence[dict[str, Tensor]]
) -> list[float]:
    """Sum clipped gradients over the micro-batches, then add noise once and step, with or without records."""
    optimizer.zero_grad(set_to_none=True)
    for position, batch in enumerate(batches):
        if position:
            optimizer.zero_grad(set_to_none=True)
        with warnings.catch_warnings():
            # The first block's inputs need no gradient; its hooks get those of the outputs, as they should.
            warnings.filterwarnings("ignore", "Full backward hook is firing")
            record_losses(model, batch).sum().backward()
        _check_and_mend(optimizer.params)
        optimizer.signal_skip_step(do_skip=position < len(batches) - 1)
        optimizer.step()
    if not batches:
        # Leaving the step out would spend less noise than the accountant counted.
        for parameter in optimizer.params:
            parameter.grad_sample = parameter.new_zeros((0, *parameter.shape))
        optimizer.step()
    return []


def _check_and_mend(parameters: Sequence[Any]) -> None:
    """Set gradients to zero that are not finite: else one record could make the whole sum NaN.

    Raises:
        FinLoraError: If a parameter has no gradient for each record.
    """
    if any(getattr(parameter, "grad_sample", None) is None for parameter in parameters):
        raise FinLoraError(
            "Opacus finds no gradient of single records for some trained tensor; only weights of linear "
            "layers can be trained privately."
        )
    norms = torch.stack([one.grad_sample.flatten(1).norm(dim=1) for one in parameters]).sum(dim=0)
    broken = ~torch.isfinite(norms)
    if broken.any():
        for parameter in parameters:
            parameter.grad_sample[broken] = 0.0


def _with_opacus(
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    settings: LocalTraining,
    plan: PrivacyPlan,
    randomness: Randomness,
    expected: float,
) -> tuple[Any, Any]:
    """Return Opacus' optimizer around ours, and its hooks on the model (as of `wrap_model=False`)."""
    try:
        from opacus.grad_sample import GradSampleHooks
        from opacus.optimizers import DPOptimizer
    except ImportError as error:
        raise FinLoraError(
            "Opacus is not installed; run `pip install finlora[federated]` to train privately."
        ) from error
    # Not strict: strict mode refuses buffers, and the frozen base has some, which carry no gradient.
    hooks = GradSampleHooks(model, batch_first=True, loss_reduction="sum", strict=False)
    private: Any = DPOptimizer(
        optimizer,
        noise_multiplier=plan.noise_multiplier,
        max_grad_norm=settings.clip_norm,
        expected_batch_size=expected,  # pyright: ignore[reportArgumentType]
    )

    def add_noise() -> None:
        for parameter in private.params:
            noise = randomness.normal(tuple(parameter.shape)).to(parameter.device, parameter.dtype)
            scale = plan.noise_multiplier * settings.clip_norm
            parameter.grad = (parameter.summed_grad + scale * noise).view_as(parameter)

    # Opacus draws from a torch generator, which has 32 bits of seed on a CPU.
    private.add_noise = add_noise
    return private, hooks


def _trained_parameters(model: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    trained = {name: value for name, value in model.named_parameters() if value.requires_grad}
    if not trained:
        raise FinLoraError("The model has no tensor to train: none of them requires a gradient.")
    rounded = [name for name, value in trained.items() if value.dtype != torch.float32]
    if rounded:
        raise FinLoraError(f"Trained tensors must be float32, {rounded[0]} is {trained[rounded[0]].dtype}.")
    return trained


def _optimizer(parameters: list[torch.nn.Parameter], settings: LocalTraining) -> torch.optim.Optimizer:
    if settings.optimizer == "adam":
        return torch.optim.Adam(parameters, settings.learning_rate)
    return torch.optim.SGD(parameters, settings.learning_rate)


def _device(trained: dict[str, torch.nn.Parameter]) -> torch.device:
    return next(iter(trained.values())).device


def _micro_batches(
    drawn: Sequence[Encoded], size: int, pad_id: int, device: torch.device
) -> list[dict[str, Tensor]]:
    """Return the records as batches of similar length, which need little padding."""
    ordered = sorted(drawn, key=lambda example: len(example.input_ids))
    parts = [ordered[start : start + size] for start in range(0, len(ordered), size)]
    return [{key: value.to(device) for key, value in collate(part, pad_id).items()} for part in parts]
