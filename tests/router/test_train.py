"""Training a router: what is trained, what is left alone, what it learns, and what an interruption costs."""

import dataclasses
import errno
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from finlora.experts.base_model import Base, load_base
from finlora.experts.encoding import collate, encode_examples
from finlora.experts.errors import FinLoraError
from finlora.experts.tasks.task import Example
from finlora.moe.bank import ExpertBank
from finlora.moe.mixture import MixtureForCausalLM
from finlora.moe.routing import ConstantRouter
from finlora.router import load_mixture
from finlora.router.hidden_state_cache import HiddenStateCache
from finlora.router.settings import RouterTrainingSettings, XLoRASettings
from finlora.router.train import new_mixture, scaling_penalties, train_router

EXAMPLES = {
    "sums": [Example(f"sum of {i}{i} and {i}?", f"{i}" * (i % 4 + 1)) for i in range(10)],
    "words": [Example(f"word {'x' * i}?", "xyz"[i % 3]) for i in range(10)],
}
SETTINGS = RouterTrainingSettings(
    max_steps=8, batch_size=4, save_steps=2, log_steps=2, learning_rate=1e-2, label_weight=0.1, seed=3
)
ROUTER = XLoRASettings(depth=2, width=16, dropout=0.1)


@pytest.fixture
def folders(make_expert) -> dict[str, Path]:
    return {"sums": make_expert("sums", seed=1), "words": make_expert("words", seed=2, r=2)}


@pytest.fixture
def base_folder(tmp_path, tiny_llama, tiny_tokenizer) -> Path:
    tiny_llama.save_pretrained(tmp_path / "base")
    tiny_tokenizer.save_pretrained(tmp_path / "base")
    return tmp_path / "base"


@pytest.fixture
def make(base_folder, folders) -> Callable[..., MixtureForCausalLM]:
    """A maker of mixtures with an untrained router, each on a base of its own."""

    def make(quantization: str = "none", router: XLoRASettings = ROUTER, seed: int = 0) -> MixtureForCausalLM:
        base = load_base(str(base_folder), quantization, device="cpu")
        return new_mixture(base, folders, router, seed=seed)

    return make


def train(mixture, out, settings=SETTINGS, examples=EXAMPLES, **options) -> Path:
    return train_router(mixture, examples, out, settings, progress=False, **options)


def router_weights(folder: Path, base: Base) -> dict[str, torch.Tensor]:
    return load_mixture(folder, base=base).router.state_dict()


def assert_same_router(actual: Path, expected: Path, base: Base) -> None:
    torch.testing.assert_close(router_weights(actual, base), router_weights(expected, base), rtol=0, atol=0)


def losses(folder: Path) -> list[float]:
    return [entry["loss"] for entry in json.loads((folder / "router_training.json").read_text())["losses"]]


def fail_at_checkpoint(monkeypatch, number: int, error: BaseException) -> None:
    save, optimizers = torch.save, []

    def failing_save(content: object, file: Any, **settings: Any) -> None:
        if str(file).endswith("optimizer.pt"):
            optimizers.append(file)
            if len(optimizers) == number:
                raise error
        save(content, file, **settings)

    monkeypatch.setattr(torch, "save", failing_save)


@pytest.mark.parametrize("quantization", ["none", "int8", "nf4"])
def test_only_the_router_changes(make, tmp_path, quantization) -> None:
    mixture = make(quantization)
    base = {name: tensor.clone() for name, tensor in mixture.origin.model.state_dict().items()}
    bank = {name: tensor.clone() for name, tensor in mixture.bank.state_dict().items()}
    router = {name: tensor.clone() for name, tensor in mixture.router.state_dict().items()}
    train(mixture, tmp_path / "out")
    assert all(torch.equal(mixture.origin.model.state_dict()[name], tensor) for name, tensor in base.items())
    assert all(torch.equal(mixture.bank.state_dict()[name], tensor) for name, tensor in bank.items())
    assert not any(torch.equal(mixture.router.state_dict()[name], tensor) for name, tensor in router.items())
    assert not any(parameter.grad is not None for parameter in mixture.base.parameters())


def test_folder_is_a_mixture_with_a_record(make, tmp_path) -> None:
    mixture = make()
    out = train(mixture, tmp_path / "out")
    names = sorted(path.name for path in out.iterdir())
    assert names == ["mixture.json", "router.safetensors", "router_training.json"]
    torch.testing.assert_close(
        router_weights(out, mixture.origin), mixture.router.state_dict(), rtol=0, atol=0
    )
    record = json.loads((out / "router_training.json").read_text())
    assert record["settings"]["label_weight"] == 0.1
    assert record["n_examples"] == {"sums": 10, "words": 10}
    assert record["experts"].keys() == {"sums", "words"}
    assert record["seed"] == 3
    assert [entry["step"] for entry in record["losses"]] == [2, 4, 6, 8]


def test_loss_is_that_of_the_answers_through_the_mixture(make, tmp_path) -> None:
    mixture = make(router=XLoRASettings(depth=1))
    settings = RouterTrainingSettings(max_steps=1, batch_size=4, save_steps=1, log_steps=1)
    # Examples are drawn with replacement: four times the same one makes the batch known.
    examples = {"sums": [EXAMPLES["sums"][1]] * 4}
    batch = collate(encode_examples(mixture.origin.tokenizer, examples["sums"]), pad_id=2)
    expected = mixture(**batch).loss.item()
    assert losses(train(mixture, tmp_path / "out", settings, examples)) == [pytest.approx(expected, rel=1e-4)]


def test_stored_hidden_states_equal_recomputed_ones(make, tmp_path) -> None:
    mixture = make("nf4")
    encoded = encode_examples(mixture.origin.tokenizer, [*EXAMPLES["sums"], *EXAMPLES["words"]])
    cache = HiddenStateCache.open(mixture, encoded, tmp_path, batch_size=3, progress=False)
    for index, example in enumerate(encoded):
        expected = mixture.scaling_hidden_states(torch.tensor([example.input_ids]))[0]
        torch.testing.assert_close(cache[index], expected, rtol=1e-4, atol=1e-5)


def test_stored_hidden_states_are_found_again(make, tmp_path, monkeypatch) -> None:
    mixture = make()
    encoded = encode_examples(mixture.origin.tokenizer, EXAMPLES["sums"])
    first = HiddenStateCache.open(mixture, encoded, tmp_path, batch_size=3, progress=False)
    monkeypatch.setattr(MixtureForCausalLM, "scaling_hidden_states", None)
    again = HiddenStateCache.open(mixture, encoded, tmp_path, batch_size=3, progress=False)
    assert torch.equal(again.states, first.states)


def test_hidden_states_of_a_base_in_bfloat16_stay_exact(base_folder, folders, tmp_path) -> None:
    base = load_base(str(base_folder), "none", device="cpu", dtype=torch.bfloat16)
    mixture = new_mixture(base, folders, ROUTER, seed=0)
    encoded = encode_examples(base.tokenizer, EXAMPLES["sums"])
    cache = HiddenStateCache.open(mixture, encoded, tmp_path, batch_size=1, progress=False)
    assert cache[3].dtype == torch.bfloat16
    assert torch.equal(cache[3], mixture.scaling_hidden_states(torch.tensor([encoded[3].input_ids]))[0])


def test_training_with_stored_hidden_states_equals_training_without(make, tmp_path) -> None:
    plain = dataclasses.replace(SETTINGS, cache_hidden_states=False)
    with_cache, without = make(), make()
    train(with_cache, tmp_path / "stored")
    train(without, tmp_path / "recomputed", plain)
    torch.testing.assert_close(
        with_cache.router.state_dict(), without.router.state_dict(), rtol=1e-3, atol=1e-4
    )


def test_hidden_states_go_with_the_run_unless_a_folder_is_given(make, tmp_path) -> None:
    train(make(), tmp_path / "out")
    assert not list(tmp_path.rglob("hidden_states_*"))
    train(make(), tmp_path / "other", cache_folder=tmp_path / "kept")
    assert len(list((tmp_path / "kept").iterdir())) == 1


def test_mixture_gives_the_same_answer_logits_in_either_padding(make) -> None:
    mixture = make()
    encoded = encode_examples(mixture.origin.tokenizer, [EXAMPLES["words"][0], EXAMPLES["words"][9]])
    right = collate(encoded, pad_id=2)
    width = len(encoded[0].input_ids)
    padding = right["input_ids"].shape[1] - width
    left = {
        name: torch.stack([right[name][0].roll(padding), right[name][1]])
        for name in ("input_ids", "attention_mask")
    }
    expected = mixture(input_ids=right["input_ids"], attention_mask=right["attention_mask"]).logits[0, :width]
    torch.testing.assert_close(mixture(**left).logits[0, padding:], expected, rtol=1e-4, atol=1e-4)


def test_labels_drive_the_scalings_to_the_right_expert(make, tmp_path) -> None:
    settings = RouterTrainingSettings(
        max_steps=60, batch_size=8, save_steps=60, log_steps=20, learning_rate=3e-2, label_weight=1.0
    )
    mixture = make(router=XLoRASettings(depth=1))
    train(mixture, tmp_path / "out", settings)
    for expert, rows in enumerate(EXAMPLES.values()):
        batch = collate(encode_examples(mixture.origin.tokenizer, rows), pad_id=2)
        mixture(**batch)
        assert mixture.last_scalings[batch["attention_mask"].bool()][..., expert].mean() > 0.8


def test_router_learns_from_the_answers_alone(make, tmp_path) -> None:
    settings = RouterTrainingSettings(
        max_steps=60, batch_size=8, save_steps=60, log_steps=20, learning_rate=1e-2
    )
    history = losses(train(make(router=XLoRASettings(depth=1)), tmp_path / "out", settings))
    assert history[-1] < history[0] - 0.02


def test_gradient_checkpointing_gives_the_same_router(make, tmp_path) -> None:
    settings = dataclasses.replace(SETTINGS, max_steps=2)
    plain, checkpointed = make(router=XLoRASettings(depth=1)), make(router=XLoRASettings(depth=1))
    train(plain, tmp_path / "plain", settings)
    train(checkpointed, tmp_path / "checkpointed", dataclasses.replace(settings, gradient_checkpointing=True))
    torch.testing.assert_close(
        checkpointed.router.state_dict(), plain.router.state_dict(), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("number", [1, 2, 4])
def test_interrupted_run_resumes_to_the_same_router_and_losses(make, tmp_path, monkeypatch, number) -> None:
    mixture = make()
    train(mixture, tmp_path / "unbroken")
    with monkeypatch.context() as patch:
        fail_at_checkpoint(patch, number, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            train(make(), tmp_path / "broken")
    train(make(), tmp_path / "broken")
    assert_same_router(tmp_path / "broken", tmp_path / "unbroken", mixture.origin)
    assert losses(tmp_path / "broken") == losses(tmp_path / "unbroken")


def test_full_disk_is_one_sentence_and_the_run_resumes(make, tmp_path, monkeypatch) -> None:
    mixture = make()
    train(mixture, tmp_path / "unbroken")
    with monkeypatch.context() as patch:
        fail_at_checkpoint(patch, 3, OSError(errno.ENOSPC, "No space left on device"))
        with pytest.raises(FinLoraError, match="The disk is full"):
            train(make(), tmp_path / "broken")
    train(make(), tmp_path / "broken")
    assert_same_router(tmp_path / "broken", tmp_path / "unbroken", mixture.origin)


KILLED_RUN = """
import json, pathlib, sys
from finlora.experts.base_model import load_base
from finlora.experts.tasks.task import Example
from finlora.router.settings import RouterTrainingSettings, XLoRASettings
from finlora.router.train import new_mixture, train_router

base_folder, out, folders, router, settings, examples = (json.loads(argument) for argument in sys.argv[1:])
mixture = new_mixture(load_base(base_folder, "none", device="cpu"), folders, XLoRASettings(**router), seed=0)
examples = {task: [Example(*row) for row in rows] for task, rows in examples.items()}
train_router(mixture, examples, pathlib.Path(out), RouterTrainingSettings(**settings), progress=False)
"""


def test_run_killed_while_it_writes_a_checkpoint_resumes_to_the_same_router(
    make, base_folder, folders, tmp_path, run_killed_at_third_checkpoint
) -> None:
    mixture = make()
    train(mixture, tmp_path / "unbroken")
    examples = {task: [(row.context, row.target) for row in rows] for task, rows in EXAMPLES.items()}
    arguments = [
        str(base_folder),
        str(tmp_path / "killed"),
        {name: str(folder) for name, folder in folders.items()},
        dataclasses.asdict(ROUTER),
        dataclasses.asdict(SETTINGS),
        examples,
    ]
    run_killed_at_third_checkpoint(KILLED_RUN, arguments)
    assert (tmp_path / "killed" / "training" / "checkpoint-6").is_dir()
    train(make(), tmp_path / "killed")
    assert_same_router(tmp_path / "killed", tmp_path / "unbroken", mixture.origin)


def test_finished_mixture_is_never_overwritten(make, tmp_path) -> None:
    out = train(make(), tmp_path / "out")
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(FinLoraError, match="already holds a finished result"):
        train(make(), out)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_unfinished_run_of_another_router_is_left_alone(make, tmp_path, monkeypatch) -> None:
    with monkeypatch.context() as patch:
        fail_at_checkpoint(patch, 2, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            train(make(), tmp_path / "out")
    with pytest.raises(FinLoraError, match="holds an unfinished run with initial_weights_sha256"):
        train(make(seed=1), tmp_path / "out")


def test_run_killed_between_mixture_and_record_is_completed(make, tmp_path, monkeypatch) -> None:
    mixture = make()
    train(mixture, tmp_path / "unbroken")

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("finlora.router.train.write_json", stop)
        with pytest.raises(KeyboardInterrupt):
            train(make(), tmp_path / "broken")
    assert (tmp_path / "broken" / "mixture.json").exists()
    train(make(), tmp_path / "broken")
    assert_same_router(tmp_path / "broken", tmp_path / "unbroken", mixture.origin)


def test_examples_too_long_for_the_base_are_counted_not_cut(make, tmp_path, caplog) -> None:
    examples = EXAMPLES | {"sums": [*EXAMPLES["sums"], Example("x" * 600, "y")]}
    out = train(make(), tmp_path / "out", examples=examples)
    record = json.loads((out / "router_training.json").read_text())
    assert record["n_too_long"] == {"sums": 1, "words": 0}
    assert record["n_examples"] == {"sums": 10, "words": 10}
    assert "sums: 1 of 11 examples are longer than the 512 tokens" in caplog.text


@pytest.mark.parametrize(
    ("examples", "sentence"), [({}, "at least one task"), ({"sums": []}, "No training example of sums")]
)
def test_no_usable_example(make, tmp_path, examples, sentence) -> None:
    with pytest.raises(FinLoraError, match=sentence):
        train(make(), tmp_path / "out", examples=examples)
    assert not (tmp_path / "out").exists()


def test_label_needs_an_expert_for_the_task(make, tmp_path) -> None:
    with pytest.raises(FinLoraError, match="need an expert for each task, but other has none"):
        train(make(), tmp_path / "out", examples={"other": EXAMPLES["sums"]})


def test_tasks_without_an_expert_can_be_learned_without_labels(make, tmp_path) -> None:
    settings = RouterTrainingSettings(
        max_steps=2, batch_size=4, save_steps=2, log_steps=2, balance_weight=0.1
    )
    out = train(make(), tmp_path / "out", settings, {"other": EXAMPLES["sums"], "words": EXAMPLES["words"]})
    assert len(losses(out)) == 1


def test_router_without_weights_is_refused(base_folder, folders, tmp_path) -> None:
    base = load_base(str(base_folder), "none", device="cpu")
    bank = ExpertBank.from_folders(folders, base)
    mixture = MixtureForCausalLM.build(base, bank, ConstantRouter.uniform(expert_count=2))
    with pytest.raises(FinLoraError, match="A constant router has no weights to train"):
        train(mixture, tmp_path / "out")


def penalty(logits: torch.Tensor, **weights: float) -> float:
    mask = torch.tensor([[1, 1], [1, 0]])
    task = torch.tensor([0, 2])
    return scaling_penalties(logits, mask, task, RouterTrainingSettings(**weights)).item()


def test_label_penalty_is_the_cross_entropy_over_real_tokens() -> None:
    logits = torch.randn(2, 2, 3, 4, generator=torch.Generator().manual_seed(0))
    rows = torch.cat([logits[0, 0], logits[0, 1], logits[1, 0]])
    targets = torch.tensor([0] * 6 + [2] * 3)
    expected = torch.nn.functional.cross_entropy(rows, targets).item()
    assert penalty(logits, label_weight=2.0) == pytest.approx(2 * expected, rel=1e-5)


def test_even_and_single_use_are_the_ends_of_the_balance_penalty() -> None:
    even, single = torch.zeros(2, 2, 3, 4), torch.zeros(2, 2, 3, 4)
    single[..., 1] = 100.0
    assert penalty(even, balance_weight=1.0) == pytest.approx(0.0, abs=1e-6)
    assert penalty(single, balance_weight=1.0) == pytest.approx(3.0)


def test_entropy_penalty_is_largest_for_even_scalings() -> None:
    even, single = torch.zeros(2, 2, 3, 4), torch.zeros(2, 2, 3, 4)
    single[..., 1] = 100.0
    assert penalty(even, entropy_weight=1.0) == pytest.approx(torch.tensor(4.0).log().item())
    assert penalty(single, entropy_weight=1.0) == pytest.approx(0.0, abs=1e-6)
