"""The whole audit of one expert: attacks on real records, canaries, and the promised epsilon beside them."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64
from peft import PeftModel

from ...adapter import read_expert
from ...base_model import Base
from ...encoding import Encoded, encode_examples, token_limit
from ...errors import FinLoraError
from ...tasks.task import Example
from ..accounting import PrivacyPlan
from ..adapters import FederatedAdapter
from ..private_training import LocalTraining, train_locally
from ..randomness import Randomness
from ..settings import FederatedSettings, from_record
from .canaries import Canary, CanaryResult, measure_canaries
from .membership import AttackResult, calibrated_scores, loss_scores, losses_of, measure
from .shadows import shadow_scores

DELTA = 1e-5
"""Of the canaries' bound, where the expert was trained without privacy."""


@dataclass(frozen=True)
class AuditReport:
    """What an audit found."""

    epsilon: float
    """What the expert's training promises to each record: infinite without privacy."""
    delta: float
    """Probability with which it may fail."""
    attacks: list[AttackResult] = field(default_factory=list)
    """Membership inference on real records."""
    canaries: CanaryResult | None = None
    """Lower bound of epsilon, where canaries were planted."""

    @property
    def is_contradicted(self) -> bool:
        """Whether the canaries rule out, with 95 % confidence, what the training promises."""
        return self.canaries is not None and self.canaries.epsilon_low > self.epsilon

    def record(self) -> dict[str, Any]:
        """Return the report as JSON can hold it, with whether it is contradicted."""
        content = dataclasses.asdict(self) | {"is_contradicted": self.is_contradicted}
        return content | {"epsilon": self.epsilon if math.isfinite(self.epsilon) else "inf"}


def audit_expert(
    folder: Path,
    base: Base,
    *,
    members: Sequence[Example] = (),
    others: Sequence[Example] = (),
    canaries: Sequence[Canary] = (),
    shadows: int = 0,
    seed: int = 0,
    progress: Callable[[str], object] = lambda _text: None,
) -> AuditReport:
    """Attack an expert.

    Args:
        folder: The expert.
        base: The base it was trained on; left as it was.
        members: Records that it was trained on.
        others: Records of the same kind that it was not trained on, of other companies.
        canaries: What was planted among its records, or left out by the coin.
        shadows: Shadow adapters for LiRA, each trained anew; 0 leaves that attack out.
        seed: Of the shadows and the intervals.
        progress: Told what happens.

    Raises:
        FinLoraError: If the expert is of another base, or there is nothing to attack it with.
    """
    if not canaries and not (members and others):
        raise FinLoraError("An audit needs members and other records, or canaries; neither is given.")
    expert = read_expert(folder)
    expert.check_fits(base)
    settings = _settings_of(expert.metadata or {})
    report = AuditReport(settings.epsilon, settings.delta if settings.is_private else DELTA)
    if canaries:
        rows, kept = _encoded(base, [one.example for one in canaries])
        scores = calibrated_scores(*_losses(folder, base, rows))
        included = np.array([canaries[index].included for index in kept])
        report = dataclasses.replace(report, canaries=measure_canaries(scores, included, delta=report.delta))
    if members and others:
        examples = [*members, *others]
        rows, kept = _encoded(base, examples)
        is_member = np.array([index < len(members) for index in kept])
        groups = [examples[index].group or f"record {index}" for index in kept]
        losses, base_losses = _losses(folder, base, rows)
        scores = {"loss": loss_scores(losses), "calibrated": calibrated_scores(losses, base_losses)}
        if shadows:
            trainer = shadow_trainer(base, rows, settings, seed=seed, progress=progress)
            scores["lira"] = shadow_scores(losses, trainer, shadows=shadows, seed=seed)
        attacks = [measure(name, each, is_member, groups, seed=seed) for name, each in scores.items()]
        report = dataclasses.replace(report, attacks=attacks)
    return report


def shadow_trainer(
    base: Base,
    rows: Sequence[Encoded],
    settings: FederatedSettings,
    *,
    seed: int,
    progress: Callable[[str], object] = lambda _text: None,
) -> Callable[[Bool[np.ndarray, " record"], int], Float64[np.ndarray, " record"]]:
    """Return what trains one shadow: an adapter of the same shape, for as many steps, with as much privacy.

    Args:
        base: Its base.
        rows: All records; a shadow is trained on some of them.
        settings: Of the attacked expert.
        seed: With the shadow's number, of its initial values and its batches.
        progress: Told each shadow's number.
    """
    pad_id: Any = base.tokenizer.pad_token_id

    def train(chosen: Bool[np.ndarray, " record"], number: int) -> Float64[np.ndarray, " record"]:
        progress(f"shadow adapter {number + 1}")
        part = [row for row, inside in zip(rows, chosen, strict=True) if inside]
        batch = min(settings.batch_size, len(part))
        steps = settings.rounds * settings.local_steps
        plan = None
        if settings.is_private:
            plan = PrivacyPlan.solve(
                epsilon=settings.epsilon,
                delta=min(settings.delta, 0.1 / len(part)),
                n_examples=len(part),
                batch_size=batch,
                steps=steps,
            )
        training = LocalTraining(
            steps=steps, batch_size=batch, learning_rate=settings.learning_rate, clip_norm=settings.clip
        )
        adapter = FederatedAdapter(base, dataclasses.replace(settings, seed=seed + number))
        randomness = Randomness.seeded(f"shadow {seed} {number}".encode())
        try:
            train_locally(adapter.model, part, training, pad_id=pad_id, plan=plan, randomness=randomness)
            return losses_of(adapter.model, rows, pad_id=pad_id)
        finally:
            adapter.remove()

    return train


def _losses(
    folder: Path, base: Base, rows: Sequence[Encoded]
) -> tuple[Float64[np.ndarray, " record"], Float64[np.ndarray, " record"]]:
    """Return the records' losses under the expert and under the base alone."""
    pad_id: Any = base.tokenizer.pad_token_id
    base_losses = losses_of(base.model, rows, pad_id=pad_id)
    model: Any = PeftModel.from_pretrained(base.model, str(folder))
    try:
        return losses_of(model, rows, pad_id=pad_id), base_losses
    finally:
        model.unload()


def _encoded(base: Base, examples: Sequence[Example]) -> tuple[list[Encoded], list[int]]:
    """Return records that fit the base as token ids, and their places in the list."""
    limit = token_limit(base.model.config)
    rows = encode_examples(base.tokenizer, examples)
    kept = [index for index, row in enumerate(rows) if len(row.input_ids) <= limit]
    return [rows[index] for index in kept], kept


def _settings_of(metadata: dict[str, Any]) -> FederatedSettings:
    """Return how an expert was trained, as a federated run of one bank if it was trained centrally."""
    federated = metadata.get("federated")
    if federated:
        return from_record(FederatedSettings, federated["settings"])
    settings = metadata.get("settings", {})
    known = {
        key: settings[key] for key in ("rank", "alpha", "batch_size", "learning_rate") if key in settings
    }
    if "targets" in settings:
        known["targets"] = tuple(settings["targets"])
    return FederatedSettings(
        adapter="fedit", rounds=1, local_steps=settings.get("max_steps") or 100, banks=1, min_banks=1, **known
    )
