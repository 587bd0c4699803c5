"""The mixture against PEFT, merged weights and the slow reference, with all caches, and in training."""

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import DynamicCache
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

from finlora.experts.errors import FinLoraError
from finlora.moe.bank import ExpertBank
from finlora.moe.mixture import MixtureForCausalLM
from finlora.moe.routing import ConstantRouter
from finlora.moe.scalings import Scalings

CLOSE = {"atol": 1e-5, "rtol": 0}
GREEDY = {"max_new_tokens": 10, "do_sample": False, "eos_token_id": None}

LORA_VARIANTS = {
    "plain": {},
    "rslora": {"use_rslora": True},
    "patterns": {"rank_pattern": {"q_proj": 2, "layers.1.mlp.up_proj": 7}, "alpha_pattern": {"v_proj": 32}},
}


@pytest.mark.parametrize("changes", LORA_VARIANTS.values(), ids=LORA_VARIANTS.keys())
def test_one_hot_equals_pefts_lora(make_base, make_tiny_llama, make_expert, prompts, changes) -> None:
    folders = {"a": make_expert("a", seed=1), "b": make_expert("b", seed=2, **changes)}
    base = make_base()
    mixture = MixtureForCausalLM.build(
        base, ExpertBank.from_folders(folders, base), ConstantRouter.one_hot(1, expert_count=2)
    )
    lora = PeftModel.from_pretrained(make_tiny_llama(), str(folders["b"])).eval()
    with torch.no_grad():
        torch.testing.assert_close(mixture(prompts).logits, lora(prompts).logits, **CLOSE)
    expected = lora.generate(input_ids=prompts, **GREEDY)
    assert mixture.generate(prompts, **GREEDY).tolist() == expected.tolist()


def test_uniform_equals_the_mean_of_merged_deltas(make_base, make_tiny_llama, make_expert, prompts) -> None:
    folders = {name: make_expert(name, seed=seed) for seed, name in enumerate("abc")}
    merged = make_tiny_llama()
    with torch.no_grad():
        for folder in folders.values():
            delta = PeftModel.from_pretrained(make_tiny_llama(), str(folder)).merge_and_unload()
            for target, source, plain in zip(
                merged.parameters(), delta.parameters(), make_tiny_llama().parameters(), strict=True
            ):
                target.add_((source - plain) / 3)
    base = make_base()
    bank = ExpertBank.from_folders(folders, base)
    mixture = MixtureForCausalLM.build(base, bank, ConstantRouter.uniform(expert_count=3))
    with torch.no_grad():
        torch.testing.assert_close(mixture(prompts).logits, merged(prompts).logits, **CLOSE)


@pytest.mark.parametrize("per_module", [True, False])
def test_different_ranks_and_targets_equal_the_slow_reference(
    any_base, make_mixture, varied_experts, slow_logits, prompts, per_module
) -> None:
    mixture = make_mixture(any_base, per_module=per_module)
    with torch.no_grad():
        actual = mixture(prompts).logits
        hidden = any_base.model.base_model(prompts).last_hidden_state
        scalings = mixture.router(hidden)
        expected = slow_logits(any_base.model, varied_experts(any_base.model), scalings, prompts)
        plain = any_base.model(prompts).logits
    torch.testing.assert_close(actual, expected, **CLOSE)
    torch.testing.assert_close(mixture.last_scalings, scalings)
    assert (expected - plain).abs().max() > 0.1


@pytest.mark.parametrize("context_width", [0, 12])
def test_tokens_one_by_one_equal_all_at_once(any_base, make_mixture, prompts, context_width) -> None:
    mixture = make_mixture(any_base, context_width=context_width)
    for cache in (None, DynamicCache()):
        pieces = []
        with torch.no_grad():
            for piece in prompts.split([5, 1, 1, 4], dim=1):
                output = mixture(piece, past_key_values=cache, use_cache=True)
                cache = output.past_key_values
                pieces.append(output.logits)
            torch.testing.assert_close(torch.cat(pieces, dim=1), mixture(prompts).logits, atol=5e-5, rtol=0)
        assert cache.get_seq_length() == 11
        assert len(cache) == 2 * 2 + (context_width > 0)


@pytest.mark.parametrize("settings", [{"top_k": 1}, {"top_k": 2, "renormalize": "sum", "per_module": False}])
def test_single_tokens_that_gather_chosen_experts_equal_all_at_once(
    make_base, make_mixture, prompts, settings, monkeypatch
) -> None:
    mixture = make_mixture(make_base(), **settings)
    expected = mixture(prompts[:1]).logits
    gathered = []
    choose = Scalings.choose
    monkeypatch.setattr(Scalings, "choose", lambda *given: gathered.append(choose(*given)) or gathered[-1])
    cache, pieces = None, []
    for token in prompts[:1].split(1, dim=1):
        output = mixture(token, past_key_values=cache, use_cache=True)
        cache = output.past_key_values
        pieces.append(output.logits)
    torch.testing.assert_close(torch.cat(pieces, dim=1), expected, **CLOSE)
    assert all(one.chosen is not None for one in gathered)


@pytest.mark.parametrize("context_width", [0, 12])
def test_every_cache_generates_the_same_tokens(
    any_base, make_mixture, check_every_cache, context_width
) -> None:
    mixture = make_mixture(any_base, context_width=context_width)
    check_every_cache(mixture)


@pytest.mark.parametrize("context_width", [0, 12])
def test_beam_search_works(make_base, make_mixture, prompts, context_width) -> None:
    mixture = make_mixture(make_base(), context_width=context_width)
    beams = {"num_beams": 3, "max_new_tokens": 6, "do_sample": False, "eos_token_id": None}
    expected = mixture.generate(prompts, use_cache=False, **beams).tolist()
    assert mixture.generate(prompts, **beams).tolist() == expected


@pytest.mark.parametrize("context_width", [0, 12])
def test_left_padding_changes_nothing(any_base, make_mixture, prompts, context_width) -> None:
    mixture = make_mixture(any_base, context_width=context_width)
    short = prompts[:1, :4]
    padded = torch.cat([torch.full((1, 7), 2), short], dim=1)
    batch = torch.cat([padded, prompts[1:2]])
    mask = (torch.arange(11) >= torch.tensor([[7], [0]])).long()
    alone = mixture.generate(short, **GREEDY)
    together = mixture.generate(batch, attention_mask=mask, **GREEDY)
    assert together[0, 7:].tolist() == alone[0].tolist()
    with torch.no_grad():
        logits = mixture(batch, attention_mask=mask, position_ids=(mask.cumsum(1) - 1).clamp(min=0)).logits
        torch.testing.assert_close(logits[0, 7:], mixture(short).logits[0], **CLOSE)


def test_constant_scalings_need_one_pass(make_base, make_expert, prompts, monkeypatch) -> None:
    base = make_base()
    bank = ExpertBank.from_folders({"a": make_expert("a", seed=1)}, base)
    mixture = MixtureForCausalLM.build(base, bank, ConstantRouter.one_hot(0, expert_count=1))
    calls = []
    forward = LlamaDecoderLayer.forward
    monkeypatch.setattr(LlamaDecoderLayer, "forward", lambda *a, **k: calls.append(1) or forward(*a, **k))
    mixture(prompts)
    assert len(calls) == mixture.config.num_hidden_layers == 2
    assert mixture.last_scalings.shape == (3, 11, 1, 1)


def test_base_stays_usable_and_several_mixtures_share_it(
    make_base, make_mixture, make_tiny_llama, prompts
) -> None:
    base = make_base()
    first, second = make_mixture(base), make_mixture(base, per_module=False)
    with torch.no_grad():
        before = first(prompts).logits
        second(prompts)
        torch.testing.assert_close(first(prompts).logits, before, rtol=0, atol=0)
        torch.testing.assert_close(
            base.model(prompts).logits, make_tiny_llama()(prompts).logits, rtol=0, atol=0
        )
    assert base.model.config.num_hidden_layers == 2


def test_parameters_are_counted_once_and_shared(make_base, make_mixture) -> None:
    base = make_base()
    mixture = make_mixture(base)
    parts = (base.model, mixture.bank, mixture.router)
    assert sum(p.numel() for p in mixture.parameters()) == sum(
        p.numel() for x in parts for p in x.parameters()
    )
    assert {name.split(".")[0] for name in mixture.state_dict()} == {"base", "bank", "router"}
    mixture.load_state_dict(mixture.state_dict())
    twin_parameters = {id(p) for p in mixture.twin.parameters()}
    assert twin_parameters == {id(p) for x in parts[:2] for p in x.parameters()}


def test_moving_a_mixture_moves_the_twin(make_base, make_mixture, prompts) -> None:
    mixture = make_mixture(make_base())
    with torch.no_grad():
        expected = mixture(prompts).logits
        torch.testing.assert_close(mixture.double()(prompts).logits.float(), expected, **CLOSE)


def test_bfloat16_base_keeps_experts_in_bfloat16(make_base, make_mixture, prompts) -> None:
    base = make_base()
    expected = make_mixture(base)(prompts).logits
    base.model.to(torch.bfloat16)
    mixture = make_mixture(base)
    assert {p.dtype for p in mixture.bank.parameters()} == {torch.bfloat16}
    assert mixture.router.linears[0].weight.dtype == torch.float32
    logits = mixture(prompts).logits
    assert logits.dtype == torch.bfloat16
    assert (logits.float() - expected).abs().max() < 0.1 * expected.abs().max()


def _train_step(
    mixture: MixtureForCausalLM, prompts: torch.Tensor, **inputs: object
) -> dict[str, torch.Tensor]:
    mixture.zero_grad()
    mixture(prompts, labels=prompts, **inputs).loss.backward()
    return {name: p.grad.clone() for name, p in mixture.named_parameters() if p.grad is not None}


def test_only_the_router_learns(make_base, make_mixture, prompts) -> None:
    mixture = make_mixture(make_base(), depth=2, width=16).train()
    before = {name: p.clone() for name, p in mixture.named_parameters()}
    trainable = [p for p in mixture.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=0.1)
    gradients = _train_step(mixture, prompts)
    optimizer.step()
    changed = {name for name, p in mixture.named_parameters() if not torch.equal(p, before[name])}
    assert set(gradients) == changed == {f"router.{name}" for name, _ in mixture.router.named_parameters()}


def test_router_gradient_equals_the_slow_references(
    make_base, make_mixture, varied_experts, slow_logits, prompts
) -> None:
    base = make_base()
    mixture = make_mixture(base)
    actual = _train_step(mixture, prompts)
    mixture.zero_grad()
    hidden = base.model.base_model(prompts).last_hidden_state
    logits = slow_logits(base.model, varied_experts(base.model), mixture.router(hidden), prompts)
    torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), prompts[:, 1:].flatten()).backward()
    for name, parameter in mixture.router.named_parameters():
        torch.testing.assert_close(actual[f"router.{name}"], parameter.grad, atol=1e-6, rtol=1e-3)


def test_gradient_checkpointing_gives_the_same_gradients(make_base, make_mixture, prompts) -> None:
    mixture = make_mixture(make_base()).train()
    expected = _train_step(mixture, prompts)
    mixture.activation_checkpointing_enable()
    recomputed = []
    first = mixture.twin.base_model.layers[0]
    handle = first.self_attn.q_proj.register_forward_hook(lambda *_: recomputed.append(1))
    actual = _train_step(mixture, prompts)
    handle.remove()
    assert len(recomputed) == 2, "the block must run again during backward"
    torch.testing.assert_close(actual, expected)


def test_checkpointed_blocks_recompute_with_their_own_scalings(make_base, make_mixture, prompts) -> None:
    mixture = make_mixture(make_base()).train()
    mixture.activation_checkpointing_enable()
    halves = [_train_step(mixture, half) for half in (prompts, prompts.flip(1))]
    mixture.zero_grad()
    losses = [mixture(half, labels=half).loss for half in (prompts, prompts.flip(1))]
    sum(losses).backward()
    for name, parameter in mixture.router.named_parameters():
        torch.testing.assert_close(parameter.grad, sum(half[f"router.{name}"] for half in halves))


@pytest.mark.parametrize("context_width", [0, 12])
def test_stored_hidden_states_replace_the_scaling_pass(
    make_base, make_mixture, prompts, monkeypatch, context_width
) -> None:
    mixture = make_mixture(make_base(), context_width=context_width)
    mask = torch.ones_like(prompts)
    mask[0, 8:] = 0
    hidden = mixture.scaling_hidden_states(prompts, mask)
    assert hidden.shape == (3, 11, 32)
    expected = _train_step(mixture, prompts, attention_mask=mask)
    monkeypatch.setattr(mixture, "_run_scaling_pass", None)
    actual = _train_step(mixture, prompts, attention_mask=mask, scaling_hidden_states=hidden)
    torch.testing.assert_close(actual, expected)


def test_stored_hidden_states_and_a_cache_exclude_each_other(make_base, make_mixture, prompts) -> None:
    mixture = make_mixture(make_base())
    hidden = mixture.scaling_hidden_states(prompts)
    with pytest.raises(FinLoraError, match="together with a cache"):
        mixture(prompts, scaling_hidden_states=hidden, use_cache=True)


def test_training_mode_reaches_the_router_only(make_base, make_mixture, prompts) -> None:
    base = make_base()
    for layer in base.model.model.layers:
        layer.self_attn.attention_dropout = 0.5
    mixture = make_mixture(base).train()
    assert mixture.router.training
    assert not mixture.base.training
    with torch.no_grad():
        torch.testing.assert_close(mixture(prompts).logits, mixture.eval()(prompts).logits, rtol=0, atol=0)


def test_hidden_states_of_the_mixture_pass_can_be_had(make_base, make_mixture, prompts) -> None:
    output = make_mixture(make_base())(prompts, output_hidden_states=True)
    assert len(output.hidden_states) == 3


def test_embedded_tokens_are_as_good_as_ids(make_base, make_mixture, prompts) -> None:
    mixture = make_mixture(make_base())
    embedded = mixture.get_input_embeddings()(prompts)
    torch.testing.assert_close(mixture(inputs_embeds=embedded).logits, mixture(prompts).logits)
    assert mixture.get_output_embeddings() is mixture.base.lm_head


def test_last_logits_only(make_base, make_mixture, prompts) -> None:
    mixture = make_mixture(make_base())
    torch.testing.assert_close(mixture(prompts, logits_to_keep=1).logits, mixture(prompts).logits[:, -1:])


def test_no_tokens_are_refused(make_base, make_mixture) -> None:
    with pytest.raises(FinLoraError, match="needs input_ids"):
        make_mixture(make_base())()


def test_deep_copy_is_independent(make_base, make_mixture, prompts) -> None:
    mixture = make_mixture(make_base())
    expected = mixture(prompts).logits
    twin = copy.deepcopy(mixture)
    twin.base.model.embed_tokens.weight.zero_()
    torch.testing.assert_close(mixture(prompts).logits, expected)
    assert not torch.allclose(twin(prompts).logits, expected)


def test_attention_kernel_of_the_base_is_kept(make_base, make_mixture, prompts) -> None:
    base = make_base()
    base.model.set_attn_implementation("eager")
    mixture = make_mixture(base)
    assert mixture.config._attn_implementation == "eager"
    assert len(mixture(prompts, output_attentions=True).attentions) == 2


def test_attention_kernel_is_set_for_both_passes(make_base, make_mixture, prompts) -> None:
    mixture = make_mixture(make_base())
    expected = mixture(prompts).logits
    mixture.set_attn_implementation("eager")
    output = mixture(prompts, output_attentions=True)
    assert len(output.attentions) == 2
    assert mixture.base.config._attn_implementation == "eager"
    torch.testing.assert_close(output.logits, expected, **CLOSE)


def test_base_without_an_output_layer_is_refused(make_base, make_expert) -> None:
    base = make_base()
    bank = ExpertBank.from_folders({"a": make_expert("a", seed=1)}, base)
    headless = replace(base, model=base.model.base_model)
    with pytest.raises(FinLoraError, match="A LlamaModel cannot be the base of a mixture"):
        MixtureForCausalLM.build(headless, bank, ConstantRouter.uniform(expert_count=1))


def test_replaced_forward_is_refused(make_base, make_expert) -> None:
    base = make_base()
    bank = ExpertBank.from_folders({"a": make_expert("a", seed=1)}, base)
    layer = base.model.model.layers[1]
    layer.forward = layer.forward
    with pytest.raises(FinLoraError, match=r"forward of model\.layers\.1 was replaced"):
        MixtureForCausalLM.build(base, bank, ConstantRouter.uniform(expert_count=1))


def test_base_without_cache_places_is_refused(make_base, make_expert) -> None:
    base = make_base()
    bank = ExpertBank.from_folders({"a": make_expert("a", seed=1)}, base)
    for layer in base.model.model.layers:
        del layer.self_attn.layer_idx
    with pytest.raises(FinLoraError, match="no layer_idx"):
        MixtureForCausalLM.build(base, bank, ConstantRouter.uniform(expert_count=1))


def test_router_for_another_bank_is_refused(make_base, make_expert, prompts) -> None:
    base = make_base()
    bank = ExpertBank.from_folders({"a": make_expert("a", seed=1)}, base)
    mixture = MixtureForCausalLM.build(base, bank, ConstantRouter.uniform(expert_count=2))
    with pytest.raises(FinLoraError, match="2 experts do not fit a bank of 10 adapted linear layers and 1"):
        mixture(prompts)


def test_save_pretrained_writes_a_mixture_folder(make_base, make_mixture, tmp_path: Path) -> None:
    make_mixture(make_base()).save_pretrained(tmp_path / "mixture")
    assert {path.name for path in (tmp_path / "mixture").iterdir()} == {"mixture.json", "router.safetensors"}
