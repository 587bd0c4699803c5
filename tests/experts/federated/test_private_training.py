"""Gradients, clipping and noise are those of DP-SGD on single records."""

import hashlib
from collections.abc import Callable

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import PreTrainedTokenizerFast

pytest.importorskip("opacus")

from finlora.experts.base_model import Base, load_base
from finlora.experts.encoding import Encoded, collate, encode_examples
from finlora.experts.errors import FinLoraError
from finlora.experts.federated import private_training
from finlora.experts.federated.accounting import PrivacyPlan, Steps
from finlora.experts.federated.ledger import BudgetError, Ledger
from finlora.experts.federated.private_training import LocalTraining, record_losses, train_locally
from finlora.experts.federated.randomness import Randomness
from finlora.experts.tasks.task import Example
from finlora.experts.training import answer_loss

SUM = LocalTraining(steps=1, batch_size=6, learning_rate=1.0, optimizer="sgd", clip_norm=0.05, micro_batch=4)
"""One step of size 1, so that the update is minus the gradient that the optimizer saw."""


def adapted(base: Base, *, trained: str = "lora_") -> PeftModel:
    """The base with a random adapter whose named tensors are trained."""
    config = LoraConfig(r=2, lora_alpha=4, target_modules=["q_proj", "down_proj"], task_type="CAUSAL_LM")
    model = get_peft_model(base.model, config)
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.1
        parameter.requires_grad_(trained in name)
    return model


def records(tokenizer: PreTrainedTokenizerFast, count: int) -> list[Encoded]:
    """Questions of unequal lengths with answers of unequal lengths."""
    return encode_examples(
        tokenizer, [Example(f"q{'u' * (3 * i)}?", "a" * (1 + i % 3)) for i in range(count)]
    )


def plan(noise: float, rate: float = 1.0) -> PrivacyPlan:
    """A plan with noise as given, whose epsilon nobody asks for."""
    return PrivacyPlan(8.0, 1e-5, rate, 10, noise, 0.0, 0.0)


def gradients(model: PeftModel, rows: list[Encoded], pad_id: int) -> list[torch.Tensor]:
    """The slow, obvious way: each record's gradient alone, as one vector."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    each = []
    for row in rows:
        loss = answer_loss(model, model.get_output_embeddings(), collate([row], pad_id))
        each.append(torch.cat([part.flatten() for part in torch.autograd.grad(loss, trained)]))
    return each


def clipped_sum(each: list[torch.Tensor], limit: float) -> torch.Tensor:
    """Sum of vectors, those longer than the limit shortened to it."""
    return sum((vector * min(1.0, limit / vector.norm().item()) for vector in each), torch.zeros(()))


def flat(update: dict[str, np.ndarray]) -> torch.Tensor:
    """An update as one vector, in the order of the model's parameters."""
    return torch.cat([torch.from_numpy(values).flatten() for values in update.values()])


@pytest.mark.parametrize("trained", ["lora_", "lora_B"])
def test_clipped_sum_equals_a_loop_over_records(make_base, tiny_tokenizer, trained: str) -> None:
    """Without noise a step is minus the mean of the clipped gradients; micro-batches change nothing."""
    model, rows = adapted(make_base(), trained=trained), records(tiny_tokenizer, 6)
    each = gradients(model, rows, 2)
    lengths = sorted(vector.norm().item() for vector in each)
    limit = (lengths[2] + lengths[3]) / 2
    settings = LocalTraining(
        **{**SUM.__dict__, "clip_norm": limit}  # half of the records are clipped, half are not
    )
    result = train_locally(model, rows, settings, pad_id=2, plan=plan(1e-9))
    assert torch.allclose(flat(result.update), -clipped_sum(each, limit) / 6, atol=2e-6)
    assert result.loss is None


def test_clipped_sum_on_a_4_bit_base() -> None:
    """The backward pass of bitsandbytes gives each record the gradient that it has alone."""
    base = load_base("embedded", "nf4")
    model = adapted(base)
    rows = encode_examples(base.tokenizer, [Example(f"Revenue of {i * 37}?", str(i)) for i in range(1, 6)])
    pad_id = base.tokenizer.pad_token_id
    each = gradients(model, rows, pad_id)
    result = train_locally(model, rows, SUM, pad_id=pad_id, plan=plan(1e-9))
    expected = -clipped_sum(each, SUM.clip_norm) / 5
    assert expected.norm() > 0.01
    assert torch.allclose(flat(result.update), expected, atol=1e-5)


def sensitivity(base: Base, rows: list[Encoded]) -> float:
    """Largest change of a step's sum when one record is added, in clipping norms."""

    def summed(part: list[Encoded]) -> torch.Tensor:
        model = adapted(base)
        before = model.training
        result = train_locally(model, part, SUM, pad_id=2, plan=plan(1e-9, rate=1.0))
        model.unload()
        assert model.training == before
        return flat(result.update) * len(part)

    whole = summed(rows)
    without = [summed(rows[:i] + rows[i + 1 :]) for i in range(len(rows))]
    return max((whole - one).norm().item() for one in without) / SUM.clip_norm


def clip_the_mean(_model, optimizer, batches) -> list[float]:
    """The published mistake: clips the gradient of the batch's mean, once, and multiplies by the batch."""
    optimizer.zero_grad(set_to_none=True)
    for batch in batches:
        record_losses(_model, batch).sum().backward()
    each = [
        torch.cat([*part] if isinstance(part, list) else [part])
        for part in (parameter.grad_sample for parameter in optimizer.params)
    ]
    count = len(each[0])
    means = [part.mean(dim=0) for part in each]
    length = torch.stack([mean.norm() for mean in means]).norm()
    factor = min(1.0, SUM.clip_norm / length.item())
    for parameter, mean in zip(optimizer.params, means, strict=True):
        parameter.grad = mean * factor * count / optimizer.expected_batch_size
    optimizer.original_optimizer.step()
    return []


def test_one_record_changes_the_sum_by_no_more_than_the_clipping_norm(make_base, tiny_tokenizer) -> None:
    assert sensitivity(make_base(), records(tiny_tokenizer, 5)) <= 1.0 + 1e-3


def test_a_mutant_that_clips_the_batch_mean_is_caught(
    make_base, tiny_tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same measurement exceeds the clipping norm when the batch's mean is clipped, not each record."""
    monkeypatch.setattr(private_training, "_private_step", clip_the_mean)
    assert sensitivity(make_base(), records(tiny_tokenizer, 5)) > 1.02


def test_noise_has_the_planned_size_with_and_without_records(make_base, tiny_tokenizer) -> None:
    """Steps that draw nobody add the same noise as the others."""
    rows = records(tiny_tokenizer, 6)
    for rate in (1e-12, 1.0):
        model = adapted(make_base())
        result = train_locally(
            model, rows, SUM, pad_id=2, plan=plan(1000.0, rate=rate), randomness=Randomness.seeded(b"noise")
        )
        noise = flat(result.update) * rate * len(rows) / (1000.0 * SUM.clip_norm)
        assert noise.std() == pytest.approx(1, abs=0.1)
        assert abs(noise.mean()) < 0.1


def test_noise_differs_between_banks_rounds_and_processes(make_base, tiny_tokenizer) -> None:
    """No seed that anyone sets, and nothing that was drawn before, makes two noises equal."""
    rows = records(tiny_tokenizer, 6)
    hashes = []
    for _bank in range(2):
        for _round in range(2):
            torch.manual_seed(0)
            np.random.seed(0)
            update = train_locally(adapted(make_base()), rows, SUM, pad_id=2, plan=plan(1.0, 1e-12)).update
            hashes += [hashlib.sha256(values.tobytes()).hexdigest() for values in update.values()]
    assert len(set(hashes)) == len(hashes)


def test_a_seed_that_is_handed_over_repeats_the_run(make_base, tiny_tokenizer) -> None:
    """Which tests of equality between engines need; another seed gives another run."""
    runs = [
        flat(
            train_locally(
                adapted(make_base()),
                records(tiny_tokenizer, 6),
                SUM,
                pad_id=2,
                plan=plan(1.0, 0.5),
                randomness=Randomness.seeded(seed),
            ).update
        )
        for seed in (b"bank-0 1", b"bank-0 1", b"bank-1 1")
    ]
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])


def test_a_record_without_a_finite_gradient_counts_as_none(
    make_base, tiny_tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One broken record must not turn the update into NaN, nor into a signal that it is there."""
    rows = records(tiny_tokenizer, 4)
    longest = max(len(row.input_ids) for row in rows)

    def broken(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        losses = record_losses(model, batch)
        lengths = batch["attention_mask"].sum(dim=1)
        return losses * torch.where(lengths == longest, float("inf"), 1.0)

    model = adapted(make_base())
    each = gradients(model, [row for row in rows if len(row.input_ids) < longest], 2)
    monkeypatch.setattr(private_training, "record_losses", broken)
    result = train_locally(model, rows, SUM, pad_id=2, plan=plan(1e-9))
    assert torch.allclose(flat(result.update), -clipped_sum(each, SUM.clip_norm) / 4, atol=2e-6)


def test_sampling_is_poisson() -> None:
    """Each record is drawn on its own, with the rate asked for; sizes vary as they should."""
    randomness = Randomness.seeded(b"sampling")
    draws = [private_training.draw_batch(randomness, 200, 0.1) for _ in range(500)]
    sizes = np.array([len(draw) for draw in draws])
    often = np.bincount(np.concatenate(draws), minlength=200) / 500
    assert sizes.mean() == pytest.approx(20, abs=0.6)
    assert sizes.var() == pytest.approx(18, rel=0.2)
    assert often.std() == pytest.approx((0.1 * 0.9 / 500) ** 0.5, rel=0.2)
    assert private_training.draw_batch(randomness, 50, 1.0) == list(range(50))


def test_normal_numbers_are_normal() -> None:
    """Moments and quantiles of many numbers from the operating system, and no repetition."""
    values = Randomness.system().normal((200, 1000)).flatten().double()
    quantiles = torch.quantile(values[:100_000], torch.tensor([0.0228, 0.1587, 0.5, 0.8413, 0.9772]).double())
    assert torch.allclose(quantiles, torch.tensor([-2.0, -1.0, 0.0, 1.0, 2.0]).double(), atol=0.04)
    assert values.std() == pytest.approx(1, abs=0.01)
    assert abs(values.pow(4).mean() - 3) < 0.15


def test_each_step_is_charged_and_a_spent_budget_trains_nothing(make_base, tiny_tokenizer, tmp_path) -> None:
    rows = records(tiny_tokenizer, 40)
    solved = PrivacyPlan.solve(epsilon=2.0, delta=1e-3, n_examples=40, batch_size=8, steps=4)
    ledger = Ledger.open(tmp_path / "ledger.json", epsilon=2.0, delta=1e-3)
    settings = LocalTraining(steps=2, batch_size=8)
    model = adapted(make_base())

    def train() -> None:
        train_locally(model, rows, settings, pad_id=2, plan=solved, ledger=ledger)

    train()
    train()
    assert ledger.history == (Steps(solved.noise_multiplier, solved.sample_rate, 4),)
    assert ledger.spent == solved.prv
    before = [parameter.clone() for parameter in model.parameters()]
    with pytest.raises(BudgetError):
        train()
    assert all(torch.equal(one, two) for one, two in zip(before, model.parameters(), strict=True))


def test_plain_training_is_that_of_the_mean_loss(make_base, tiny_tokenizer) -> None:
    """Without a plan a step follows the mean of the records' gradients, clipped as a whole."""
    model, rows = adapted(make_base()), records(tiny_tokenizer, 6)
    mean = torch.stack(gradients(model, rows, 2)).mean(dim=0)
    losses = torch.stack(
        [answer_loss(model, model.get_output_embeddings(), collate([row], 2)) for row in rows]
    )
    settings = LocalTraining(**{**SUM.__dict__, "clip_norm": mean.norm().item() / 2})
    result = train_locally(model, rows, settings, pad_id=2)
    assert torch.allclose(flat(result.update), -mean / 2, atol=2e-6)
    assert result.loss == pytest.approx(losses.mean().item(), rel=1e-5)


def test_training_leaves_no_trace_on_the_model(make_base, tiny_tokenizer) -> None:
    """Mode, hooks and attributes are as before; an adapter saved afterwards loads as it is."""
    model = adapted(make_base()).eval()
    train_locally(model, records(tiny_tokenizer, 6), SUM, pad_id=2, plan=plan(1.0))
    assert not model.training
    assert not any(module._forward_hooks or module._backward_hooks for module in model.modules())
    assert not any("grad_sample" in vars(parameter) for parameter in model.parameters())
    train_locally(model, records(tiny_tokenizer, 6), SUM, pad_id=2, plan=plan(1.0))


def test_what_cannot_be_trained_privately_is_refused(
    make_base, tiny_tokenizer, make_tiny_llama: Callable[..., torch.nn.Module]
) -> None:
    rows = records(tiny_tokenizer, 3)
    with pytest.raises(FinLoraError, match="no tensor to train"):
        train_locally(make_tiny_llama(), rows, SUM, pad_id=2)
    with pytest.raises(FinLoraError, match="without any record"):
        train_locally(adapted(make_base()), [], SUM, pad_id=2)
    rounded = adapted(make_base())
    for parameter in rounded.parameters():
        parameter.data = parameter.data.bfloat16()
    with pytest.raises(FinLoraError, match="must be float32"):
        train_locally(rounded, rows, SUM, pad_id=2)


def test_step_size_falls_along_a_cosine() -> None:
    rates = [LocalTraining(learning_rate=1.0).in_round(number, 5).learning_rate for number in range(5)]
    assert rates == pytest.approx([1.0, 0.868, 0.55, 0.232, 0.1], abs=1e-3)
