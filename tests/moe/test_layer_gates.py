"""Routing inside the layers against plain loops, with all caches; and what is refused."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

from finlora.experts.base_model import Base
from finlora.experts.errors import FinLoraError
from finlora.moe import layer_scalings
from finlora.moe.bank import ExpertBank
from finlora.moe.layer_gates import LayerGateSettings, LayerRouter
from finlora.moe.mixture import MixtureForCausalLM
from finlora.moe.mixture_linear import MixtureLinear
from finlora.moe.mode import Mode
from finlora.moe.peft_xlora import export_peft_xlora
from finlora.moe.scalings import Scalings

CLOSE = {"atol": 1e-5, "rtol": 0}
GREEDY = {"max_new_tokens": 10, "do_sample": False, "eos_token_id": None}
GATES = {
    "absolute": {"score": "absolute", "top_k": 2, "temperature": 0.7},
    "standardized": {"score": "standardized", "top_k": 1},
    "all": {"score": "standardized"},
    "sigmoid": {"score": "sigmoid"},
}
each_gate = pytest.mark.parametrize("settings", GATES.values(), ids=GATES.keys())


def gates_for(bank: ExpertBank, settings: dict) -> LayerRouter:
    generator = torch.Generator().manual_seed(7)
    groups = zip(bank.stacks.downs, bank.stacks.layout.group_sizes, strict=True)
    widths = [group.down.shape[1] for group, size in groups for _ in range(size)]
    vectors = [torch.randn(bank.expert_count, width, generator=generator) for width in widths]
    return LayerRouter(LayerGateSettings(**settings), vectors)


@pytest.fixture
def make_gated(varied_experts) -> Callable[..., MixtureForCausalLM]:
    """A maker of mixtures of experts with random gate vectors; keywords are settings of the gates."""

    def make(base: Base, folders: dict[str, Path] | None = None, **settings: object) -> MixtureForCausalLM:
        bank = ExpertBank.from_folders(folders or varied_experts(base.model), base)
        return MixtureForCausalLM.build(base, bank, gates_for(bank, settings))

    return make


@pytest.fixture
def equal_ranks(make_expert) -> dict[str, Path]:
    """Three experts of rank 3 that adapt different layers."""
    return {
        "a": make_expert("a", seed=1, r=3, lora_alpha=6, target_modules=["q_proj", "v_proj", "up_proj"]),
        "b": make_expert("b", seed=2, r=3, lora_alpha=3, target_modules=["v_proj", "down_proj", "up_proj"]),
        "c": make_expert("c", seed=3, r=3, use_rslora=True, target_modules=["q_proj", "k_proj", "v_proj"]),
    }


def weights_of_one_token(x: Tensor, vectors: Tensor, adapting: list[int], settings: dict) -> list[float]:
    """The definition, in plain numbers."""
    width = len(x)
    if settings["score"] == "standardized":
        mean = x.sum() / width
        x = (x - mean) / ((x - mean).square().sum() / width + 1e-5).sqrt()
    products = {expert: float((x * vectors[expert]).sum()) for expert in adapting}
    if settings["score"] == "sigmoid":
        return [
            float(torch.sigmoid(torch.tensor(products[e]))) if e in adapting else 0.0
            for e in range(len(vectors))
        ]
    scores = {e: abs(p) if settings["score"] == "absolute" else p for e, p in products.items()}
    chosen = sorted(scores, key=scores.__getitem__, reverse=True)[: settings.get("top_k")]
    shares = torch.tensor([scores[e] for e in chosen]) / settings.get("temperature", 1.0)
    shares = dict(zip(chosen, torch.softmax(shares, dim=0).tolist(), strict=True))
    return [shares.get(e, 0.0) for e in range(len(vectors))]


def run_and_keep(mixture: MixtureForCausalLM, prompts: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Logits, scalings, and the input of each adapted layer, in the bank's order."""
    inputs: dict[str, Tensor] = {}
    hooks = [
        module.register_forward_pre_hook(lambda _m, args, name=name: inputs.update({name: args[0]}))
        for name, module in mixture.twin.named_modules()
        if isinstance(module, MixtureLinear)
    ]
    mixture.keeps_scalings = True
    with torch.no_grad():
        logits = mixture(prompts).logits
    for hook in hooks:
        hook.remove()
    return logits, mixture.last_scalings, [inputs[name] for name in mixture.bank.module_names]


@each_gate
def test_scalings_and_logits_equal_plain_loops(
    any_base, make_gated, varied_experts, slow_logits, prompts, settings
) -> None:
    mixture = make_gated(any_base, **settings)
    logits, scalings, inputs = run_and_keep(mixture, prompts)
    ranks = mixture.bank.stacks.layout.ranks
    for module, x in enumerate(inputs):
        adapting = ranks[module].nonzero().flatten().tolist()
        vectors = mixture.router.vectors[module]
        expected = [[weights_of_one_token(t, vectors, adapting, settings) for t in row] for row in x]
        torch.testing.assert_close(scalings[:, :, module], torch.tensor(expected), **CLOSE)
    with torch.no_grad():
        slow = slow_logits(any_base.model, varied_experts(any_base.model), scalings, prompts)
        plain = any_base.model(prompts).logits
    torch.testing.assert_close(logits, slow, **CLOSE)
    assert (slow - plain).abs().max() > 0.1


def test_experts_get_no_weight_in_layers_that_they_do_not_adapt(make_base, make_gated, prompts) -> None:
    for settings in GATES.values():
        mixture = make_gated(make_base(), **settings)
        _, scalings, _ = run_and_keep(mixture, prompts)
        absent = mixture.bank.stacks.layout.ranks == 0
        assert absent.any()
        assert not scalings[:, :, absent].any()
        if settings["score"] != "sigmoid":
            torch.testing.assert_close(scalings.sum(-1), torch.ones(scalings.shape[:3]))


def test_layers_with_one_input_decide_by_their_own_vectors(make_base, make_gated, prompts) -> None:
    mixture = make_gated(make_base(), score="absolute", top_k=2)
    _, scalings, inputs = run_and_keep(mixture, prompts)
    names = mixture.bank.module_names
    query, value = (names.index(f"model.layers.0.self_attn.{one}_proj") for one in ("q", "v"))
    assert inputs[query] is inputs[value]
    assert not torch.allclose(scalings[:, :, query], scalings[:, :, value])


def test_inputs_are_used_once_for_all_layers_that_share_them(
    make_base, make_gated, prompts, monkeypatch
) -> None:
    mixture = make_gated(make_base(), score="absolute", top_k=2)
    groups = []
    weigh = LayerRouter.weigh
    monkeypatch.setattr(
        LayerRouter,
        "weigh",
        lambda self, x, modules, adapts: groups.append(modules) or weigh(self, x, modules, adapts),
    )
    mixture(prompts)
    assert [module for group in groups for module in group] == list(range(mixture.bank.module_count))
    assert len(groups) == len(mixture.bank.stacks.downs) < mixture.bank.module_count


def test_scalings_are_kept_only_when_asked_for(make_base, make_gated, prompts) -> None:
    mixture = make_gated(make_base(), score="absolute", top_k=2)
    mixture(prompts)
    assert mixture.last_scalings is None
    mixture.keeps_scalings = True
    mixture(prompts)
    assert mixture.last_scalings.shape == (3, 11, mixture.bank.module_count, 3)


def test_one_pass_with_the_depth_of_the_base(make_base, make_gated, prompts, monkeypatch) -> None:
    mixture = make_gated(make_base(), score="absolute", top_k=2)
    calls = []
    forward = LlamaDecoderLayer.forward
    monkeypatch.setattr(LlamaDecoderLayer, "forward", lambda *a, **k: calls.append(1) or forward(*a, **k))
    output = mixture(prompts, use_cache=True)
    assert len(calls) == len(output.past_key_values) == mixture.config.num_hidden_layers == 2


@each_gate
@pytest.mark.parametrize("combine", ["outputs", "matrices"])
def test_tokens_one_by_one_equal_all_at_once(
    make_base, make_gated, equal_ranks, prompts, settings, combine, monkeypatch
) -> None:
    mixture = make_gated(make_base(), equal_ranks, combine=combine, **settings)
    choose, gathered = Scalings.choose, []
    monkeypatch.setattr(Scalings, "choose", lambda *given: gathered.append(choose(*given)) or gathered[-1])
    with torch.no_grad():
        expected = mixture(prompts[:1]).logits
        assert all(one.chosen is None for one in gathered)
        gathered.clear()
        cache, pieces = DynamicCache(), []
        for token in prompts[:1].split(1, dim=1):
            pieces.append(mixture(token, past_key_values=cache, use_cache=True).logits)
    torch.testing.assert_close(torch.cat(pieces, dim=1), expected, atol=5e-5, rtol=0)
    assert all((one.chosen is not None) is ("top_k" in settings) for one in gathered)


@pytest.mark.parametrize("combine", ["outputs", "matrices"])
def test_gathering_equals_computing_all_for_different_ranks_too(
    make_base, make_gated, equal_ranks, prompts, combine, monkeypatch
) -> None:
    folders = equal_ranks if combine == "matrices" else None
    mixture = make_gated(make_base(), folders, combine=combine, score="absolute", top_k=2)
    with torch.no_grad():
        gathered = mixture(prompts[:1, :1]).logits
        monkeypatch.setattr(
            layer_scalings.Scalings, "choose", lambda weights, most_chosen, layout: Scalings(weights, layout)
        )
        torch.testing.assert_close(gathered, mixture(prompts[:1, :1]).logits, **CLOSE)


@pytest.mark.parametrize(
    ("any_base", "combine"),
    [("llama", "matrices"), ("llama", "outputs"), ("qwen2", "outputs")],
    indirect=["any_base"],
)
def test_every_cache_generates_the_same_tokens(
    any_base, make_expert, make_gated, check_every_cache, combine
) -> None:
    folders = {
        name: make_expert(name, seed=seed, model=type(any_base.model)(any_base.model.config))
        for seed, name in enumerate("abc")
    }
    mixture = make_gated(any_base, folders, score="standardized", top_k=2, combine=combine)
    check_every_cache(mixture)


def test_left_padding_changes_nothing(any_base, make_gated, prompts) -> None:
    mixture = make_gated(any_base, score="absolute", top_k=2)
    short = prompts[:1, :4]
    batch = torch.cat([torch.cat([torch.full((1, 7), 2), short], dim=1), prompts[1:2]])
    mask = (torch.arange(11) >= torch.tensor([[7], [0]])).long()
    alone = mixture.generate(short, **GREEDY)
    together = mixture.generate(batch, attention_mask=mask, **GREEDY)
    assert together[0, 7:].tolist() == alone[0].tolist()


def test_bfloat16_and_double_follow_float32(make_base, make_gated, prompts) -> None:
    base = make_base()
    # Soft choices: hard ones may fall another way after rounding.
    settings = {"score": "standardized", "temperature": 20.0}
    mixture = make_gated(base, **settings)
    expected = mixture(prompts).logits
    torch.testing.assert_close(mixture.double()(prompts).logits.float(), expected, atol=5e-5, rtol=0)
    base.model.to(torch.bfloat16)
    half = make_gated(base, **settings)
    assert half.router.vectors[0].dtype == torch.float32
    assert (half(prompts).logits.float() - expected).abs().mean() < 0.02 * expected.abs().max()


def test_gradient_checkpointing_gives_the_same_gradients(make_base, make_gated, prompts) -> None:
    def gradients() -> list[Tensor]:
        mixture = make_gated(make_base(), score="sigmoid").train()
        mixture.router.requires_grad_(True)
        if checkpointed:
            mixture.activation_checkpointing_enable()
        mixture(prompts, labels=prompts).loss.backward()
        return [vectors.grad for vectors in mixture.router.vectors]

    checkpointed = False
    expected = gradients()
    checkpointed = True
    torch.testing.assert_close(gradients(), expected)
    assert all(one.abs().max() > 0 for one in expected)


def test_matrices_of_different_ranks_are_refused(make_base, make_gated) -> None:
    with pytest.raises(FinLoraError, match=r"q_proj a has rank 2 and c rank 3; use combine='outputs'"):
        make_gated(make_base(), score="absolute", combine="matrices")


def test_vectors_for_other_layers_are_refused(make_base, make_gated) -> None:
    mixture = make_gated(make_base(), score="absolute")
    vectors = list(mixture.router.vectors)
    for wrong in (vectors[1:], [one[:2] for one in vectors], [one[:, :16] for one in vectors]):
        router = LayerRouter(mixture.router.settings, wrong)
        with pytest.raises(FinLoraError, match="make the router for this bank"):
            MixtureForCausalLM.build(mixture.origin, mixture.bank, router)


def test_other_modes_and_peft_are_refused(make_base, make_gated, tmp_path) -> None:
    mixture = make_gated(make_base(), score="absolute")
    with pytest.raises(FinLoraError, match="leave the mode at exact, instead of draft"):
        mixture.in_mode(Mode(name="draft"))
    with pytest.raises(FinLoraError, match="PEFT cannot express this layer_gates router"):
        export_peft_xlora(mixture, tmp_path / "peft")
    assert not (tmp_path / "peft").exists()


def test_it_cannot_be_asked_before_the_pass(make_base, make_gated) -> None:
    with pytest.raises(RuntimeError, match="inside the layers"):
        make_gated(make_base(), score="absolute").router(torch.zeros(1, 2, 32))


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"score": "cosine"}, "score"),
        ({"score": "absolute", "combine": "sum"}, "combine"),
        ({"score": "absolute", "top_k": 0}, "top_k must be at least 1, got 0"),
        ({"score": "absolute", "temperature": 0.0}, "temperature must be above 0"),
        ({"score": "sigmoid", "top_k": 1}, "leave out top_k and temperature"),
        ({"score": "absolute", "sharpness": 1}, "Settings sharpness of layer gates are unknown"),
        ({"top_k": 1}, "missing or of the wrong kind"),
    ],
)
def test_settings_that_cannot_be_followed_are_refused(values, reason) -> None:
    with pytest.raises(FinLoraError, match=reason):
        LayerGateSettings.from_dict(values)


def test_widths_of_the_wrong_number_are_refused() -> None:
    sizes = {"d_model": 8, "module_count": 2, "expert_count": 3}
    for widths in (None, [8], [8, "8"]):
        with pytest.raises(FinLoraError, match="the width of the input of each of 2 adapted linear layers"):
            LayerRouter.from_settings({"score": "absolute", "d_in": widths}, **sizes)
