"""Seconds of one training step: of routers, ours and PEFT's, and of a single LoRA."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch

from ...experts.base_model import QUANTIZATIONS, Base
from ...moe.mode import EXACT, Mode
from .contenders import TRUNK
from .models import Workshop
from .plan import Bench, Record, Unit, timed
from .settings import SpeedPlan
from .timing import seconds_of, take_turns

LORA_STEP = "peft_lora"
"""The method that ratios of training are to."""
CHECKPOINTING = {"use_reentrant": False}


@dataclass
class Training:
    """A model in training, with one batch that it sees again and again.

    Attributes:
        model: Gives a loss.
        trained: The parameters that learn.
        tokens: Token ids (row, token), which are the labels too.
        inputs: Further arguments of the model.
    """

    model: Any
    trained: list[torch.nn.Parameter]
    tokens: torch.Tensor
    inputs: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Make the optimizer."""
        self.optimizer = torch.optim.AdamW(self.trained, lr=1e-4)

    def step(self) -> None:
        """Forward, backward, update."""
        self.model(input_ids=self.tokens, labels=self.tokens, use_cache=False, **self.inputs).loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()

    def touch(self) -> None:
        """Run a few tokens without learning, after which all weights are in memory."""
        with torch.no_grad():
            self.model(input_ids=self.tokens[:1, :4], use_cache=False)


Prepare = Callable[[Workshop, Base, torch.Tensor], Training]


@dataclass(frozen=True, kw_only=True)
class TrainingMethod:
    """Something that is trained.

    Attributes:
        title: What people read.
        colour: In plots.
        prepare: Makes it, for a base (which PEFT's methods load again, since they change it) and token ids.
        quantizations: Bases that it trains on.
    """

    title: str
    colour: str
    prepare: Prepare
    quantizations: tuple[str, ...] = QUANTIZATIONS


def train_router(
    workshop: Workshop,
    base: Base,
    tokens: torch.Tensor,
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
    inputs = {"scaling_hidden_states": mixture.scaling_hidden_states(tokens)} if stored else {}
    return Training(mixture, list(mixture.router.parameters()), tokens, inputs)


def train_peft_lora(
    workshop: Workshop, base: Base, tokens: torch.Tensor, *, checkpointing: bool = False
) -> Training:
    """A single LoRA in PEFT."""
    model = workshop.peft_lora(base.quantization, trainable=True)
    if checkpointing:
        model.gradient_checkpointing_enable(CHECKPOINTING)
    return Training(model, [one for one in model.parameters() if one.requires_grad], tokens)


def train_peft_xlora(workshop: Workshop, base: Base, tokens: torch.Tensor) -> Training:
    """The router of PEFT's X-LoRA."""
    model = workshop.peft_xlora().train()
    classifier = model.get_submodule("base_model.internal_xlora_classifier")
    return Training(model, list(classifier.parameters()), tokens)


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
        prepare=lambda workshop, base, tokens: train_router(workshop, base, tokens, mode=TRUNK),
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


def training_batch(bench: Bench) -> torch.Tensor:
    """The token ids of one step (row, token)."""
    return bench.workshop.prompt(bench.plan.training_rows, bench.plan.training_tokens)


def measure(bench: Bench, *, quantization: str) -> list[Record]:
    """Time a step of everything that trains on this quantization."""
    base, tokens = bench.workshop.base(quantization), training_batch(bench)
    work = {}
    for name, method in TRAINING.items():
        if quantization in method.quantizations:
            training = method.prepare(bench.workshop, base, tokens)
            training.step()
            work[name] = partial(seconds_of, training.step)
    label = f"training, {quantization}"
    times = take_turns(work, bench.repeats, patience=bench.plan.patience_seconds, label=label)
    rows, length = tokens.shape
    about = {"quantization": quantization, "rows": rows, "tokens": length}
    return [timed("training step", name, seconds, **about) for name, seconds in times.items()]
