"""PHATGOOSE: what a gate learns, how gates are joined, and what an interruption costs."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import Tensor

from finlora.experts.adapter import read_expert
from finlora.experts.base_model import Base, load_base
from finlora.experts.encoding import collate, encode_examples
from finlora.experts.errors import FinLoraError
from finlora.experts.tasks.task import Example
from finlora.experts.training import answer_loss
from finlora.moe.bank import ExpertBank, read_matrices
from finlora.moe.checkpoint import read_tensors
from finlora.moe.layer_gates import LayerRouter
from finlora.moe.mixture import MixtureForCausalLM
from finlora.router import load_mixture, phatgoose
from finlora.router.phatgoose import join_gates, standardize, train_phatgoose, untrained_gate
from finlora.router.settings import PhatgooseSettings

EXAMPLES = {
    "sums": [Example(f"sum of {i}{i} and {i}?", f"{i}" * (i % 4 + 1)) for i in range(10)],
    "words": [Example(f"word {'x' * i}?", "xyz"[i % 3]) for i in range(10)],
}
SETTINGS = PhatgooseSettings(max_steps=4, batch_size=4, save_steps=2, log_steps=2, seed=3, top_k=1)


@pytest.fixture
def experts(make_expert) -> dict[str, Path]:
    """Two experts of different ranks that share some layers."""
    return {
        "sums": make_expert("sums", seed=1, target_modules=["q_proj", "v_proj", "down_proj"]),
        "words": make_expert("words", seed=2, r=2, target_modules=["v_proj", "up_proj", "down_proj"]),
    }


@pytest.fixture
def base(tmp_path, tiny_llama, tiny_tokenizer) -> Base:
    """The tiny base, loaded from a folder."""
    tiny_llama.save_pretrained(tmp_path / "base")
    tiny_tokenizer.save_pretrained(tmp_path / "base")
    return load_base(str(tmp_path / "base"), "none", device="cpu")


@contextmanager
def slow_updates(
    base: Base, folder: Path, gate: Callable[[int, Tensor], Tensor], module_names: Sequence[str]
) -> Iterator[None]:
    """Let the base add an expert's dense updates, each output times its gate, one layer after the other."""
    matrices = read_matrices("expert", read_expert(folder))
    hooks = []
    for index, name in enumerate(module_names):
        down, up = matrices[name]

        def add(_module, args, output, index=index, delta=up @ down) -> Tensor:
            return output + gate(index, args[0])[..., None] * (args[0] @ delta.T)

        hooks.append(base.model.get_submodule(name).register_forward_hook(add))
    yield
    for hook in hooks:
        hook.remove()


def train(base, experts, folder, settings=SETTINGS, examples=EXAMPLES) -> Path:
    return train_phatgoose(base, experts, examples, folder, settings, progress=False)


def vectors_of(folder: Path) -> dict[str, Tensor]:
    return read_tensors(folder / "router.safetensors")


def gated_expert(base: Base, experts: dict[str, Path], name: str) -> MixtureForCausalLM:
    bank = ExpertBank.from_folders({name: experts[name]}, base)
    return MixtureForCausalLM.build(base, bank, untrained_gate(bank))


def test_gradient_of_a_gate_equals_a_plain_loops(base, experts) -> None:
    mixture = gated_expert(base, experts, "sums")
    generator = torch.Generator().manual_seed(0)
    for vectors in mixture.router.vectors:
        vectors.data.copy_(torch.randn(vectors.shape, generator=generator) * 0.3)
    mixture.router.requires_grad_(True)
    batch = collate(encode_examples(base.tokenizer, EXAMPLES["sums"][:4]), pad_id=2)
    loss = answer_loss(mixture, mixture.get_output_embeddings(), batch)
    loss.backward()
    slow = [vectors.detach().clone().requires_grad_(True) for vectors in mixture.router.vectors]
    with slow_updates(
        base, experts["sums"], lambda module, x: torch.sigmoid(x @ slow[module][0]), mixture.bank.module_names
    ):
        expected = answer_loss(base.model, base.model.get_output_embeddings(), batch)
    expected.backward()
    torch.testing.assert_close(loss, expected)
    for fast, one in zip(mixture.router.vectors, slow, strict=True):
        assert one.grad.abs().max() > 0
        torch.testing.assert_close(fast.grad, one.grad, atol=1e-6, rtol=1e-3)


def test_an_untrained_gate_halves_its_expert(base, experts) -> None:
    mixture = gated_expert(base, experts, "words")
    prompt = torch.randint(3, 259, (2, 9), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        actual = mixture(prompt).logits
        with slow_updates(base, experts["words"], lambda *_: torch.tensor(0.5), mixture.bank.module_names):
            torch.testing.assert_close(actual, base.model(prompt).logits, atol=1e-5, rtol=0)


def test_training_writes_a_mixture_with_a_record_and_changes_nothing_else(base, experts, tmp_path) -> None:
    before = {name: tensor.clone() for name, tensor in base.model.state_dict().items()}
    out = train(base, experts, tmp_path / "out")
    names = sorted(path.name for path in out.iterdir())
    assert names == ["mixture.json", "phatgoose_training.json", "router.safetensors"]
    record = json.loads((out / "phatgoose_training.json").read_text())
    assert record["settings"]["top_k"] == 1
    assert [entry["step"] for entry in record["gates"]["words"]["losses"]] == [2, 4]
    assert record["gates"]["sums"]["n_examples"] == {"sums": 10}
    assert record["seconds"] > 0
    assert all(torch.equal(base.model.state_dict()[name], tensor) for name, tensor in before.items())
    mixture = load_mixture(out, device="cpu")
    assert mixture.router.settings.score == "standardized"
    assert mixture.bank.expert_names == ("sums", "words")
    for module, (vectors, ranks) in enumerate(
        zip(mixture.router.vectors, mixture.bank.stacks.layout.ranks, strict=True)
    ):
        for expert, vector in enumerate(vectors):
            expected = 1.0 if ranks[expert] else 0.0
            assert float(vector.norm()) == pytest.approx(expected, abs=0.2), (module, expert)
    prompt = base.tokenizer("<bos>sum of 11 and 1?", return_tensors="pt").input_ids
    mixture.keeps_scalings = True
    assert mixture.generate(prompt, max_new_tokens=4, eos_token_id=None).shape[1] == prompt.shape[1] + 4
    assert set(mixture.last_scalings.unique().tolist()) == {0.0, 1.0}


def test_gates_learn(base, experts, tmp_path) -> None:
    settings = PhatgooseSettings(max_steps=40, batch_size=8, save_steps=40, log_steps=10, learning_rate=2e-2)
    out = train(base, experts, tmp_path / "out", settings)
    record = json.loads((out / "phatgoose_training.json").read_text())
    for gate in record["gates"].values():
        losses = [entry["loss"] for entry in gate["losses"]]
        assert losses[-1] < losses[0] - 0.02


def test_joined_gates_keep_what_was_trained(base, experts, tmp_path) -> None:
    generator = torch.Generator().manual_seed(1)
    trained, folders = {}, {}
    for name in experts:
        mixture = gated_expert(base, experts, name)
        for module, vectors in zip(mixture.bank.module_names, mixture.router.vectors, strict=True):
            vectors.data.copy_(torch.randn(vectors.shape, generator=generator))
            trained[name, module] = vectors[0].clone()
        folders[name] = tmp_path / f"gate of {name}"
        mixture.save_pretrained(folders[name])
    bank = ExpertBank.from_folders(experts, base)
    router = join_gates(bank, folders, top_k=2)
    x = torch.randn(1, 1, 32, generator=generator)
    for index, module in enumerate(bank.module_names):
        for expert, name in enumerate(bank.expert_names):
            vector, joined = trained.get((name, module)), router.vectors[index][expert]
            if vector is None:
                assert not joined.any()
                continue
            d_in = len(vector)
            plain = (vector - vector.mean()) / (vector.var(correction=0) + 1e-5).sqrt() / d_in**0.5
            torch.testing.assert_close(joined, plain)
    queries = bank.module_names.index("model.layers.0.self_attn.v_proj")
    normal = (x - x.mean()) / (x.var(correction=0) + 1e-5).sqrt()
    scores = torch.stack(
        [
            (normal[0, 0] * standardize(trained[name, "model.layers.0.self_attn.v_proj"])).sum()
            for name in experts
        ]
    )
    weights = router.weigh(x, range(queries, queries + 1))[0, 0, 0]
    torch.testing.assert_close(weights, torch.softmax(scores, dim=0))


def test_the_seed_decides_and_tasks_do_not_meet(base, experts, tmp_path) -> None:
    both = vectors_of(train(base, experts, tmp_path / "both"))
    again = vectors_of(train(base, experts, tmp_path / "again"))
    torch.testing.assert_close(again, both, rtol=0, atol=0)
    other = vectors_of(
        train(base, experts, tmp_path / "other", examples=EXAMPLES | {"words": EXAMPLES["words"][:5]})
    )
    assert all(torch.equal(other[key][0], both[key][0]) for key in both), "the gate of sums saw no words"
    assert not all(torch.equal(other[key][1], both[key][1]) for key in both)


@pytest.mark.parametrize("checkpoint", [1, 2, 3, 4])
def test_an_interrupted_run_goes_on_to_the_same_gates(
    base, experts, tmp_path, monkeypatch, checkpoint
) -> None:
    expected = vectors_of(train(base, experts, tmp_path / "unbroken"))
    save, optimizers = torch.save, []

    def failing_save(content: object, file: object, **settings: object) -> None:
        if str(file).endswith("optimizer.pt"):
            optimizers.append(file)
            if len(optimizers) == checkpoint:
                raise KeyboardInterrupt
        save(content, file, **settings)

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", failing_save)
        with pytest.raises(KeyboardInterrupt):
            train(base, experts, tmp_path / "broken")
    trained, train_router = [], phatgoose.train_router
    monkeypatch.setattr(
        phatgoose,
        "train_router",
        lambda mixture, *given, **options: (
            trained.extend(mixture.bank.expert_names) or train_router(mixture, *given, **options)
        ),
    )
    assert not (tmp_path / "broken" / "mixture.json").exists()
    train(base, experts, tmp_path / "broken")
    assert trained == (["sums", "words"] if checkpoint <= 2 else ["words"])
    torch.testing.assert_close(vectors_of(tmp_path / "broken"), expected, rtol=0, atol=0)


def test_a_run_killed_between_mixture_and_record_is_completed(base, experts, tmp_path, monkeypatch) -> None:
    expected = vectors_of(train(base, experts, tmp_path / "unbroken"))

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(phatgoose, "write_json", stop)
        with pytest.raises(KeyboardInterrupt):
            train(base, experts, tmp_path / "broken")
    assert (tmp_path / "broken" / "mixture.json").exists()
    monkeypatch.setattr(phatgoose, "train_router", None)
    train(base, experts, tmp_path / "broken")
    torch.testing.assert_close(vectors_of(tmp_path / "broken"), expected, rtol=0, atol=0)
    with pytest.raises(FinLoraError, match="already holds a finished result"):
        train(base, experts, tmp_path / "broken")


def test_an_unfinished_run_of_something_else_is_left_alone(base, experts, tmp_path, monkeypatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(phatgoose, "join_gates", None)
        with pytest.raises(TypeError):
            train(base, experts, tmp_path / "out")
    with pytest.raises(FinLoraError, match="holds an unfinished run with settings"):
        train(base, experts, tmp_path / "out", PhatgooseSettings(max_steps=5))


@pytest.mark.parametrize("examples", [{"sums": EXAMPLES["sums"]}, EXAMPLES | {"ner": EXAMPLES["sums"]}])
def test_experts_and_tasks_must_match(base, experts, tmp_path, examples) -> None:
    lonely = "words" if len(examples) == 1 else "ner"
    with pytest.raises(FinLoraError, match=f"give an expert and examples for each of {lonely}"):
        train(base, experts, tmp_path / "out", examples=examples)
    assert not (tmp_path / "out").exists()


def test_top_k_below_one_is_refused() -> None:
    with pytest.raises(FinLoraError, match="top_k must be at least 1, got 0"):
        PhatgooseSettings(top_k=0)


def test_a_gate_is_a_router_that_load_mixture_knows(base, experts, tmp_path) -> None:
    mixture = gated_expert(base, experts, "sums")
    mixture.save_pretrained(tmp_path / "gate")
    loaded = load_mixture(tmp_path / "gate", base=base).router
    assert isinstance(loaded, LayerRouter)
    assert loaded.settings_as_dict() == mixture.router.settings_as_dict()
