"""Merges that learn: what they learn, and that the adapter does the same as the mixture."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file

from finlora.experts.adapter import read_expert
from finlora.experts.encoding import collate, encode_examples
from finlora.experts.errors import FinLoraError
from finlora.experts.tasks.task import Example
from finlora.experts.training import answer_loss
from finlora.moe.bank import ExpertBank
from finlora.moe.checkpoint import read_mixture
from finlora.moe.mixture import MixtureForCausalLM
from finlora.moe.routing import ConstantRouter
from finlora.router.cat import LearnedConstantRouter
from finlora.router.learned_merges import LEARNED_MERGES, merge_by_learning
from finlora.router.loading import load_mixture
from finlora.router.merge_settings import CatSettings, LoraHubSettings
from finlora.router.settings import RouterTrainingSettings
from finlora.router.train import train_router

CAT = CatSettings(max_steps=20, batch_size=4, save_steps=20, log_steps=10, seed=3)
LORAHUB = LoraHubSettings(steps=40, penalty=0.001)
SETTINGS = {"cat": CAT, "lorahub": LORAHUB}
NEEDS_NEVERGRAD = pytest.mark.skipif(
    importlib.util.find_spec("nevergrad") is None, reason="needs nevergrad: pip install -e .[merge]"
)
each_method = pytest.mark.parametrize("method", ["cat", pytest.param("lorahub", marks=NEEDS_NEVERGRAD)])


@pytest.fixture
def folders(make_expert) -> dict[str, Path]:
    """Three experts with other ranks, scales and layers."""
    return {
        "a": make_expert("a", seed=1, r=2, lora_alpha=4),
        "b": make_expert("b", seed=2, target_modules=["q_proj", "gate_proj"]),
        "c": make_expert("c", seed=3, r=3, lora_alpha=3, use_rslora=True),
    }


@pytest.fixture
def examples(make_base, folders) -> dict[str, list[Example]]:
    """Questions with the letters that expert a alone answers them with."""
    base = make_base()
    expert = PeftModel.from_pretrained(base.model, str(folders["a"])).eval()
    letters = {base.tokenizer.convert_tokens_to_ids(letter) for letter in "abcdefghijklmnopqrstuvwxyz"}
    others = [token for token in range(259) if token not in letters]
    rows = []
    for number in range(6):
        ids = base.tokenizer(f"<bos>what is {number}? ", return_tensors="pt").input_ids
        answer = expert.generate(ids, max_new_tokens=6, do_sample=False, suppress_tokens=others)
        rows.append(Example(f"what is {number}?", base.tokenizer.decode(answer[0, ids.shape[1] :])))
    return {"task": rows}


@pytest.fixture
def prompts() -> torch.Tensor:
    """Three prompts of 11 tokens."""
    return torch.randint(3, 259, (3, 11), generator=torch.Generator().manual_seed(0))


def merge(base, folders, examples, out, settings) -> Path:
    return merge_by_learning(folders, base, examples, out, settings, progress=False)


def mixture_with(weights, base, folders) -> MixtureForCausalLM:
    return MixtureForCausalLM.build(base, ExpertBank.from_folders(folders, base), ConstantRouter(weights))


def loss_of(mixture, examples) -> float:
    rows = [row for rows in examples.values() for row in rows]
    batch = collate(encode_examples(mixture.origin.tokenizer, rows), mixture.origin.tokenizer.pad_token_id)
    with torch.no_grad():
        return float(answer_loss(mixture, mixture.get_output_embeddings(), batch))


def weights_of(folder, names="abc") -> torch.Tensor:
    weights = read_expert(folder).metadata["weights"]
    return torch.tensor([weights[name] for name in names]).T


@each_method
def test_adapter_answers_as_the_mixture_with_these_weights(
    make_base, folders, examples, tmp_path, prompts, method
) -> None:
    folder = merge(make_base(), folders, examples, tmp_path / "out", SETTINGS[method])
    mixture = mixture_with(weights_of(folder), make_base(), folders)
    adapted = PeftModel.from_pretrained(make_base().model, str(folder)).eval()
    expected = mixture(prompts).logits
    torch.testing.assert_close(adapted(prompts).logits, expected, rtol=0, atol=1e-5)
    assert (expected - make_base().model(prompts).logits).abs().max() > 0.01


@each_method
def test_learned_weights_are_better_than_uniform_ones(make_base, folders, examples, tmp_path, method) -> None:
    base = make_base()
    folder = merge(base, folders, examples, tmp_path / "out", SETTINGS[method])
    uniform = loss_of(mixture_with([1 / 3] * 3, base, folders), examples)
    assert loss_of(mixture_with(weights_of(folder), base, folders), examples) < uniform - 0.05


@each_method
def test_equal_seeds_give_equal_bytes(make_base, folders, examples, tmp_path, method) -> None:
    one, two = (
        merge(make_base(), folders, examples, tmp_path / name, SETTINGS[method]) for name in ("one", "two")
    )
    file = "adapter_model.safetensors"
    assert (one / file).read_bytes() == (two / file).read_bytes()
    assert sorted(path.name for path in one.iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
        "expert.json",
    ]


def test_every_learned_merge_is_tested() -> None:
    assert set(LEARNED_MERGES) == set(SETTINGS)


def test_cat_learns_a_weight_for_each_layer_and_nothing_else(make_base, folders, examples, tmp_path) -> None:
    base = make_base()
    before = {name: tensor.clone() for name, tensor in base.model.state_dict().items()}
    folder = merge(base, folders, examples, tmp_path / "out", CAT)
    metadata = read_expert(folder).metadata
    weights = weights_of(folder)
    bank = ExpertBank.from_folders(folders, base)
    assert metadata["modules"] == list(bank.module_names)
    assert weights.shape == (bank.module_count, 3)
    assert len({round(float(weight), 4) for weight in weights[:, 0]}) > bank.module_count // 2
    untouched = bank.module_names.index("model.layers.0.self_attn.v_proj")
    assert weights[untouched, 1] == pytest.approx(1 / 3)
    assert [entry["step"] for entry in metadata["learning"]["losses"]] == [10, 20]
    torch.testing.assert_close(base.model.state_dict(), before, rtol=0, atol=0)


def test_trained_constant_router_is_saved_as_a_constant_router(
    make_base, folders, examples, tmp_path
) -> None:
    base = make_base()
    bank = ExpertBank.from_folders(folders, base)
    mixture = MixtureForCausalLM.build(base, bank, LearnedConstantRouter([0.5, 0.5, 0.0]))
    settings = RouterTrainingSettings(max_steps=2, batch_size=4, learning_rate=0.1, cache_hidden_states=False)
    train_router(mixture, examples, tmp_path / "out", settings, progress=False)
    assert read_mixture(tmp_path / "out").router_name == "constant"
    router = load_mixture(tmp_path / "out", base=base).router
    assert isinstance(router, ConstantRouter)
    assert not list(router.parameters())
    torch.testing.assert_close(router.weights, mixture.router.weights.data, rtol=0, atol=0)
    assert router.weights[0, 2] != 0


def test_interrupted_merge_goes_on_from_what_was_learned(
    make_base, folders, examples, tmp_path, monkeypatch
) -> None:
    expected = merge(make_base(), folders, examples, tmp_path / "whole", CAT)
    with monkeypatch.context() as patched:
        patched.setattr("finlora.router.learned_merges.weighted_sum", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            merge(make_base(), folders, examples, tmp_path / "out", CAT)
    monkeypatch.setattr("finlora.router.cat.train_router", lambda *_, **__: pytest.fail("trained again"))
    folder = merge(make_base(), folders, examples, tmp_path / "out", CAT)
    file = "adapter_model.safetensors"
    assert (folder / file).read_bytes() == (expected / file).read_bytes()


@NEEDS_NEVERGRAD
def test_lorahub_stays_in_its_bounds_and_shrinks(make_base, folders, examples, tmp_path) -> None:
    narrow = LoraHubSettings(steps=30, bound=0.25, penalty=0.0)
    weights = weights_of(merge(make_base(), folders, examples, tmp_path / "narrow", narrow))
    assert weights.shape == (1, 3)
    assert weights.abs().max() == pytest.approx(0.25, abs=1e-3)
    dear = LoraHubSettings(steps=30, penalty=100.0)
    metadata = read_expert(merge(make_base(), folders, examples, tmp_path / "dear", dear)).metadata
    assert max(abs(weight) for row in metadata["weights"].values() for weight in row) < 1e-3
    assert metadata["learning"]["loss"] == pytest.approx(metadata["learning"]["first_loss"], abs=1e-2)
    assert metadata["learning"]["n_examples"] == {"task": 6}


@NEEDS_NEVERGRAD
def test_record_names_examples_and_settings(make_base, folders, examples, tmp_path) -> None:
    content = json.loads(
        (merge(make_base(), folders, examples, tmp_path / "o", LORAHUB) / "expert.json").read_text()
    )
    assert content["merge"] == {"method": "lorahub", "settings": LORAHUB.record()}
    assert (content["base"], content["base_revision"], content["quantization"]) == (
        "tiny",
        "revision-1",
        "none",
    )
    assert list(content["data_sha256"]) == ["task"]
    assert content["ranks"]["largest"] == 2 + 4 + 3


@NEEDS_NEVERGRAD
def test_what_cannot_be_learned_is_refused(make_base, folders, examples, tmp_path) -> None:
    short = make_base(max_position_embeddings=8)
    for settings, reason in ((LORAHUB, "at least one example that fits the 8"), (CAT, "longer than the 8")):
        with pytest.raises(FinLoraError, match=reason):
            merge(short, folders, examples, tmp_path / settings.method, settings)
    out = merge(make_base(), folders, examples, tmp_path / "out", LORAHUB)
    before = load_file(out / "adapter_model.safetensors")
    with pytest.raises(FinLoraError, match="already holds a finished result"):
        merge(make_base(), folders, examples, out, CAT)
    torch.testing.assert_close(load_file(out / "adapter_model.safetensors"), before, rtol=0, atol=0)


def test_missing_nevergrad_is_explained(make_base, folders, examples, tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "nevergrad", None)
    with pytest.raises(FinLoraError, match=r"pip install finlora\[merge\]"):
        merge(make_base(), folders, examples, tmp_path / "out", LORAHUB)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [({"steps": 0}, "steps must be"), ({"bound": 0.0}, "bound must be"), ({"penalty": -1.0}, "penalty must")],
)
def test_search_without_meaning_is_refused(settings, reason) -> None:
    with pytest.raises(FinLoraError, match=reason):
        LoraHubSettings(**settings)
