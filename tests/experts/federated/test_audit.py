"""Attacks find what is there to be found, and canaries bound epsilon as published."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest

from finlora.experts.atomic_write import write_json
from finlora.experts.base_model import Base
from finlora.experts.encoding import collate, encode_examples
from finlora.experts.errors import FinLoraError
from finlora.experts.federated.adapters import FederatedAdapter
from finlora.experts.federated.audit import canaries as canary_audit
from finlora.experts.federated.audit.canaries import (
    Canary,
    chance_of,
    invent_canaries,
    lower_bound,
    measure_canaries,
    read_canaries,
    write_canaries,
)
from finlora.experts.federated.audit.membership import area_under_curve, losses_of, measure
from finlora.experts.federated.audit.run import audit_expert, shadow_trainer
from finlora.experts.federated.audit.shadows import confidence, halves, likelihood_ratios, shadow_scores
from finlora.experts.federated.expert_folder import write_expert
from finlora.experts.federated.private_training import LocalTraining, train_locally
from finlora.experts.federated.randomness import Randomness
from finlora.experts.federated.settings import FederatedSettings
from finlora.experts.tasks.task import Example
from finlora.experts.training import answer_loss
from finlora.moe.cli import main

OVERFIT = FederatedSettings(
    adapter="fedit",
    rank=16,
    rounds=1,
    local_steps=50,
    batch_size=24,
    learning_rate=1e-2,
    banks=1,
    min_banks=1,
)
"""Many steps on few records."""


@pytest.fixture
def lively_base(make_base) -> Base:
    """A random base whose weights are large enough for an adapter to find features to memorize with."""
    return make_base(initializer_range=0.2)


def random_records(count: int, *, seed: int) -> list[Example]:
    """Records whose answers can only be memorized."""
    random = np.random.default_rng(seed)

    def word(length: int) -> str:
        return "".join(random.choice(list("abcdefghij"), length))

    return [Example(f"{word(6)}?", word(4), f"company {index // 2}") for index in range(count)]


def train(base: Base, examples: list[Example], out: Path, settings: FederatedSettings = OVERFIT) -> Path:
    """Train an expert as one bank would, and write its folder."""
    adapter = FederatedAdapter(base, settings)
    training = LocalTraining(
        steps=settings.local_steps,
        batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        clip_norm=settings.clip,
    )
    rows = encode_examples(base.tokenizer, examples)
    train_locally(adapter.model, rows, training, pad_id=2, randomness=Randomness.seeded(b"audit"))
    metadata = {"task": "t", "base": base.name, "federated": {"settings": settings.record()}}
    write_expert(adapter, out, metadata)
    adapter.remove()
    return out


def test_area_is_the_share_of_pairs_in_the_right_order() -> None:
    """Against the slow, obvious way: all pairs."""
    random = np.random.default_rng(0)
    inside, outside = random.integers(0, 6, 23) / 2.0, random.integers(0, 5, 31) / 2.0
    pairs = [(a > b) + (a == b) / 2 for a in inside for b in outside]
    assert area_under_curve(inside, outside) == pytest.approx(np.mean(pairs))


def test_interval_and_true_positives() -> None:
    """Guessing includes 0.5; certainty finds everybody; groups that agree widen the interval."""
    random = np.random.default_rng(1)
    is_member = np.arange(400) < 200
    guess = measure("guess", random.random(400), is_member)
    assert guess.low < 0.5 < guess.high
    assert guess.tpr_at_1 < 0.1
    sure = measure("sure", is_member + random.random(400) / 2, is_member)
    assert (sure.auc, sure.low, sure.tpr_at_1, sure.tpr_at_5) == (1, 1, 1, 1)
    scores = np.repeat(random.random(40), 10)
    alone = measure("alone", scores, is_member)
    together = measure("together", scores, is_member, [str(index // 10) for index in range(400)])
    assert together.high - together.low > 2 * (alone.high - alone.low)
    with pytest.raises(FinLoraError, match="missing"):
        measure("none", scores, np.ones(400, bool))


def test_losses_are_those_of_single_records(make_base, tiny_tokenizer) -> None:
    """Batches change nothing, and neither does the order of lengths."""
    base = make_base()
    examples = [Example("q" * (1 + 7 * (i % 3)), "a" * (1 + i % 4)) for i in range(7)]
    rows = encode_examples(tiny_tokenizer, examples)
    each = [answer_loss(base.model, base.model.lm_head, collate([row], 2)).item() for row in rows]
    assert losses_of(base.model, rows, pad_id=2) == pytest.approx(each, rel=1e-4)


def test_attacks_find_the_members_of_an_overfitted_adapter(lively_base: Base, tmp_path: Path) -> None:
    """Both attacks reach an area of at least 0.9: they work where there is something to find."""
    base = lively_base
    members, others = random_records(24, seed=0), random_records(24, seed=1)
    others = [dataclasses.replace(one, group=f"other {one.group}") for one in others]
    folder = train(base, members, tmp_path / "expert")
    report = audit_expert(folder, base, members=members, others=others)
    assert [attack.attack for attack in report.attacks] == ["loss", "calibrated"]
    assert min(attack.auc for attack in report.attacks) >= 0.9
    assert report.epsilon == math.inf
    assert report.record()["epsilon"] == "inf"
    assert not any("lora" in name for name, _ in base.model.named_parameters())


def test_attacks_find_nothing_where_nothing_was_learned(lively_base: Base, tmp_path: Path) -> None:
    base = lively_base
    members, others = random_records(60, seed=0), random_records(60, seed=1)
    untrained = dataclasses.replace(OVERFIT, local_steps=1, learning_rate=1e-6)
    folder = train(base, random_records(60, seed=2), tmp_path / "expert", untrained)
    report = audit_expert(folder, base, members=members, others=others)
    assert all(abs(attack.auc - 0.5) < 0.17 for attack in report.attacks)


def test_lira_sees_what_the_loss_alone_does_not() -> None:
    """Where records differ more in difficulty than membership matters, each one's shadows tell it."""
    random = np.random.default_rng(0)
    difficulty = random.uniform(0.5, 4.0, 80)
    is_member = random.random(80) < 0.5

    def losses(seen: np.ndarray) -> np.ndarray:
        return difficulty * np.where(seen, 0.7, 1.0) * random.lognormal(sigma=0.05, size=80)

    attacked = losses(is_member)
    scores = shadow_scores(attacked, lambda seen, _number: losses(seen), shadows=16, seed=0)
    assert measure("lira", scores, is_member).auc >= 0.95
    assert measure("loss", -attacked, is_member).auc < 0.75


def test_a_shadow_is_trained_on_its_records_alone(lively_base: Base) -> None:
    """It memorizes the chosen half, not the other, and leaves the base as it was."""
    rows = encode_examples(lively_base.tokenizer, random_records(32, seed=0))
    chosen = np.arange(32) % 2 == 0
    losses = shadow_trainer(lively_base, rows, OVERFIT, seed=0)(chosen, 0)
    assert losses[chosen].mean() < losses[~chosen].mean() / 2
    assert not any("lora" in name for name, _ in lively_base.model.named_parameters())


def test_each_record_is_in_half_of_the_shadows() -> None:
    seen = halves(31, 16, seed=0)
    assert (seen.sum(axis=0) == 8).all()
    assert len({tuple(row) for row in seen}) == 16
    with pytest.raises(FinLoraError, match="even number of at least 16"):
        shadow_scores(np.zeros(3), lambda _seen, _number: np.zeros(3), shadows=15, seed=0)


def test_likelihood_ratios_are_those_of_normal_densities() -> None:
    """Against scipy's densities, record by record."""
    norm = pytest.importorskip("scipy.stats").norm
    random = np.random.default_rng(0)
    seen = halves(9, 16, seed=1)
    confidences = random.normal(seen * 2.0, 1.0)
    attacked = random.normal(size=9)
    spread = [
        np.sqrt(
            np.mean(
                [(confidences[s, r] - confidences[part[:, r], r].mean()) ** 2 for s, r in np.argwhere(part)]
            )
        )
        for part in (seen, ~seen)
    ]
    expected = [
        norm.logpdf(attacked[r], confidences[seen[:, r], r].mean(), spread[0])
        - norm.logpdf(attacked[r], confidences[~seen[:, r], r].mean(), spread[1])
        for r in range(9)
    ]
    assert likelihood_ratios(attacked, confidences, seen) == pytest.approx(expected, abs=1e-4)
    assert confidence(np.array([math.log(2)])) == pytest.approx(0)


def test_lower_bound_is_the_published_one() -> None:
    """Appendix D of Steinke et al.: 75 of 100 guesses on 1,000 canaries at delta 1e-4 give 0.673."""
    assert lower_bound(1000, 100, 75, delta=1e-4) == pytest.approx(0.673, abs=5e-4)
    assert lower_bound(1000, 100, 50, delta=1e-4) == 0
    assert lower_bound(100, 66, 66, delta=0.0) == pytest.approx(-math.log(0.05 ** (-1 / 66) - 1), rel=1e-6)


def test_the_bound_holds_for_randomized_response() -> None:
    """A mechanism whose epsilon is exactly 1: at most a twentieth of the audits claim more."""
    random = np.random.default_rng(0)
    honest = 1 / (1 + math.exp(-1))
    by_correct = [lower_bound(100, 100, correct, delta=0.0) for correct in range(101)]
    bounds = np.array(by_correct)[random.binomial(100, honest, size=4000)]
    assert np.mean(bounds > 1) <= 0.05
    assert np.mean(bounds) > 0.4
    assert chance_of(100, 100, 0, 1.0, 0.0) == 1


def test_canaries_are_drawn_by_coins_and_read_back(tmp_path: Path) -> None:
    canaries = invent_canaries(400)
    assert len({one.example.context for one in canaries}) == 400
    assert 140 < sum(one.included for one in canaries) < 260
    write_canaries(tmp_path / "secret.jsonl", canaries)
    assert read_canaries(tmp_path / "secret.jsonl") == canaries
    assert invent_canaries(20, seed=1) == invent_canaries(20, seed=1) != invent_canaries(20, seed=2)
    (tmp_path / "other.jsonl").write_text('{"context": "a", "target": "b", "included": 1}\n')
    with pytest.raises(FinLoraError, match="true or false"):
        read_canaries(tmp_path / "other.jsonl")
    with pytest.raises(FinLoraError, match="bound nothing"):
        invent_canaries(5)


def test_guesses_are_the_outer_thirds() -> None:
    scores = np.arange(30, dtype=float)
    result = measure_canaries(scores, scores >= 15, delta=1e-5)
    assert (result.canaries, result.guessed, result.correct) == (30, 20, 20)
    assert result.epsilon_low > 1.5
    assert measure_canaries(scores, scores < 15, delta=1e-5).epsilon_low == 0


def canaries_for_memory(count: int) -> list[Canary]:
    """Short canaries, so that a tiny base can memorize them."""
    return [Canary(example, index % 2 == 0) for index, example in enumerate(random_records(count, seed=5))]


def test_a_broken_training_is_caught_by_its_canaries(lively_base: Base, tmp_path: Path) -> None:
    """An expert that memorizes while its file promises epsilon 0.5 is contradicted, and the command fails."""
    base = lively_base
    canaries = canaries_for_memory(48)
    planted = [one.example for one in canaries if one.included]
    folder = train(base, planted, tmp_path / "expert")
    honest = audit_expert(folder, base, canaries=canaries)
    assert honest.canaries is not None
    assert honest.canaries.epsilon_low > 1
    assert not honest.is_contradicted
    promised = dataclasses.replace(OVERFIT, epsilon=0.5).record()
    write_json(folder / "expert.json", {"base": base.name, "federated": {"settings": promised}})
    assert audit_expert(folder, base, canaries=canaries).is_contradicted


def test_commands(tmp_path: Path, lively_base: Base, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    """Planting and auditing from the command line; a broken promise ends with status 2."""
    base = lively_base
    monkeypatch.setattr("finlora.experts.base_model.load_base", lambda *_arguments: base)
    monkeypatch.setattr(canary_audit, "invent_canaries", lambda _count: canaries_for_memory(48))
    records = tmp_path / "records.jsonl"
    records.write_text('{"context": "q", "target": "a"}\n{"context": "r", "target": "b"}\n')
    out, secret = tmp_path / "planted.jsonl", tmp_path / "secret.jsonl"
    words = ["federate", "canaries", str(records), "--out", str(out), "--secret", str(secret)]
    assert main(words) == 0
    assert "24 of 100 canaries" in capsys.readouterr().out
    planted = [one.example for one in read_canaries(secret) if one.included]
    assert len(out.read_text().splitlines()) == 26
    folder = train(base, planted, tmp_path / "expert", dataclasses.replace(OVERFIT, epsilon=0.5))
    report = tmp_path / "report.json"
    words = ["federate", "audit", str(folder), "--canaries", str(secret), "--out", str(report)]
    assert main(words) == 2
    printed = capsys.readouterr()
    assert "epsilon is at least" in printed.out
    assert "not private as told" in printed.err
    assert '"is_contradicted": true' in report.read_text()
    assert main(["federate", "audit", str(folder), "--members", str(records)]) == 2
