"""Seconds of one training step: of routers, ours and PEFT's, and of a single LoRA."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch

from ...experts.base_model import QUANTIZATIONS, Base
from ...experts.encoding import IGNORED_LABEL, prompt_lengths
from ...experts.training import answer_loss
from ...moe.mode import EXACT, Mode
from .contenders import TRUNK
from .models import Workshop
from .plan import Bench, Record, Unit, timed
from .settings import SpeedPlan
from .timing import seconds_of, take_turns

Batch = dict[str, torch.Tensor]
LORA_STEP = "peft_lora"
"""The method that ratios of training are to."""
CHECKPOINTING = {"use_reentrant": False}


@dataclass
class Training:
    """A model in training, with one batch that it sees again and again.

    Attributes:
        model: Gives a loss.
        trained: The parameters that learn.
        batch: Token ids and labels (row, token).
        inputs: Further arguments of the model.
        loss: From the model and its inputs; by default the model's own.
    """

    model: Any
    trained: list[torch.nn.Parameter]
    batch: Batch
    inputs: dict[str, Any] = field(default_factory=dict)
    loss: Callable[[Any, dict[str, Any]], torch.Tensor] = lambda model, inputs: (
        model(**inputs, use_cache=False).loss
    )

    def __post_init__(self) -> None:
        """Make the optimizer."""
        self.optimizer = torch.optim.AdamW(self.trained, lr=1e-4)

    def step(self) -> None:
        """Forward, backward, update."""
        self.loss(self.model, {**self.batch, **self.inputs}).backward()
        self.optimizer.step()
        self.optimizer.zero_grad()

    def touch(self) -> None:
        """Run a few tokens without learning, after which all weights are in memory."""
        with torch.no_grad():
            self.model(input_ids=self.batch["input_ids"][:1, :4], use_cache=False)


Prepare = Callable[[Workshop, Base, Batch], Training]


@dataclass(frozen=True, kw_only=True)
class TrainingMethod:
    """Something that is trained.

    Attributes:
        title: What people read.
        colour: In plots.
        prepare: Makes it, for a base (which PEFT's methods load again, since they change it) and a batch.
        quantizations: Bases that it trains on.
    """

    title: str
    colour: str
    prepare: Prepare
    quantizations: tuple[str, ...] = QUANTIZATIONS


def train_router(
    workshop: Workshop,
    base: Base,
    batch: Batch,
    *,
    stored: bool = False,
    checkpointing: bool = False,
    mode: Mode = EXACT,
) -> Training:
    """Our router, with the scaling pass or with its stored hidden states instead."""
    mixture = workshop.mixture(base, mode=mode).train()
    mixture.router.requires_grad_(True)
    if checkpointing:
        mixture.gradient_checkpointing_enable(CHECKPOINTING)
    inputs = {"scaling_hidden_states": mixture.scaling_hidden_states(batch["input_ids"])} if stored else {}
    if mode.name == "prompt":
        inputs["prompt_lengths"] = prompt_lengths(batch["labels"])
    head = mixture.get_output_embeddings()
    assert head is not None
    # As the library trains: logits of learnt tokens alone.
    return Training(
        mixture,
        list(mixture.router.parameters()),
        batch,
        inputs,
        loss=lambda model, inputs: answer_loss(model, head, inputs),
    )


def train_peft_lora(workshop: Workshop, base: Base, batch: Batch, *, checkpointing: bool = False) -> Training:
    """A single LoRA in PEFT."""
    model = workshop.peft_lora(base.quantization, trainable=True)
    if checkpointing:
        model.gradient_checkpointing_enable(CHECKPOINTING)
    return Training(model, [one for one in model.parameters() if one.requires_grad], batch)


def train_peft_xlora(workshop: Workshop, base: Base, batch: Batch) -> Training:
    """The router of PEFT's X-LoRA."""
    model = workshop.peft_xlora().train()
    classifier = model.get_submodule("base_model.internal_xlora_classifier")
    return Training(model, list(classifier.parameters()), batch)


TRAINING: dict[str, TrainingMethod] = {
    LORA_STEP: TrainingMethod(title="PEFT, one LoRA", colour="#6b7280", prepare=train_peft_lora),
    "peft_lora_checkpointing": TrainingMethod(
        title="PEFT, one LoRA, checkpointing",
        colour="#9ca3af",
        prepare=partial(train_peft_lora, checkpointing=True),
    ),
    "router": TrainingMethod(title="Router", colour="#0f766e", prepare=train_router),
    "router_stored": TrainingMethod(
        title="Router, stored hidden states", colour="#14857b", prepare=partial(train_router, stored=True)
    ),
    "router_checkpointing": TrainingMethod(
        title="Router, checkpointing", colour="#5eaaa2", prepare=partial(train_router, checkpointing=True)
    ),
    "router_stored_checkpointing": TrainingMethod(
        title="Router, stored, checkpointing",
        colour="#8cc5bf",
        prepare=partial(train_router, stored=True, checkpointing=True),
    ),
    "router_trunk": TrainingMethod(
        title="Router, mode trunk",
        colour="#1d4ed8",
        prepare=lambda workshop, base, batch: train_router(workshop, base, batch, mode=TRUNK),
        quantizations=("none",),
    ),
    "router_previous": TrainingMethod(
        title="Router, mode previous",
        colour="#7c3aed",
        prepare=partial(train_router, mode=Mode(name="previous")),
        quantizations=("none",),
    ),
    "router_prompt": TrainingMethod(
        title="Router, mode prompt",
        colour="#be185d",
        prepare=partial(train_router, mode=Mode(name="prompt")),
        quantizations=("none",),
    ),
    "peft_xlora": TrainingMethod(
        title="PEFT, X-LoRA router", colour="#b45309", prepare=train_peft_xlora, quantizations=("none",)
    ),
}


def units(plan: SpeedPlan) -> list[Unit]:
    """One unit a quantization."""
    return [Unit(name, partial(measure, quantization=name)) for name in QUANTIZATIONS]


def training_batch(bench: Bench) -> Batch:
    """The token ids of one step, and their labels, of which only the last of each row are learnt."""
    plan = bench.plan
    tokens = bench.workshop.prompt(plan.training_rows, plan.training_tokens)
    labels = tokens.clone()
    labels[:, : -plan.training_answer] = IGNORED_LABEL
    return {"input_ids": tokens, "labels": labels}


def measure(bench: Bench, *, quantization: str) -> list[Record]:
    """Time a step of everything that trains on this quantization."""
    base, batch = bench.workshop.base(quantization), training_batch(bench)
    work = {}
    for name, method in TRAINING.items():
        if quantization in method.quantizations:
            training = method.prepare(bench.workshop, base, batch)
            training.step()
            work[name] = partial(seconds_of, training.step)
    label = f"training, {quantization}"
    times = take_turns(work, bench.repeats, patience=bench.plan.patience_seconds, label=label)
    rows, length = batch["input_ids"].shape
    learnt = bench.plan.training_answer
    about = {"quantization": quantization, "rows": rows, "tokens": length, "learnt_tokens": learnt}
    return [timed("training step", name, seconds, **about) for name, seconds in times.items()]
