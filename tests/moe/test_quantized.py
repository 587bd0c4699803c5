"""Mixtures on nf4 and int8 bases against one expert after the other; the base stays as it is."""

import pytest
import torch
from bitsandbytes.nn import Linear4bit, Linear8bitLt
from peft import PeftModel

from finlora.experts.base_model import load_base
from finlora.moe.bank import ExpertBank
from finlora.moe.mixture import MixtureForCausalLM
from finlora.moe.routing import ConstantRouter
from finlora.router.arrow import make_arrow

CLOSE = {"atol": 1e-3, "rtol": 0}
KINDS = {"nf4": Linear4bit, "int8": Linear8bitLt}


@pytest.fixture(params=KINDS)
def quantized_base(request, tmp_path, make_tiny_llama, tiny_tokenizer):
    """A tiny Llama from a folder, loaded with each quantization in turn."""
    make_tiny_llama(hidden_size=64, intermediate_size=128).save_pretrained(tmp_path / "base")
    tiny_tokenizer.save_pretrained(tmp_path / "base")
    return load_base(str(tmp_path / "base"), request.param, device="cpu")


@pytest.fixture
def folders(make_expert, make_tiny_llama):
    """Four experts of different ranks for that base."""
    return {
        str(i): make_expert(
            str(i), seed=i, r=i + 2, model=make_tiny_llama(hidden_size=64, intermediate_size=128)
        )
        for i in range(4)
    }


@pytest.fixture
def mixture(make_router, quantized_base, folders):
    """An X-LoRA mixture of the four on the quantized base."""
    bank = ExpertBank.from_folders(folders, quantized_base)
    return MixtureForCausalLM.build(quantized_base, bank, make_router(bank, d_model=64))


def _weights(model) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def test_logits_equal_the_slow_reference(mixture, quantized_base, folders, slow_logits, prompts) -> None:
    model = quantized_base.model
    assert isinstance(model.model.layers[0].self_attn.q_proj, KINDS[quantized_base.quantization])
    with torch.no_grad():
        actual = mixture(prompts).logits
        scalings = mixture.router(model.base_model(prompts).last_hidden_state)
        expected = slow_logits(model, folders, scalings, prompts)
        plain = model(prompts).logits
    torch.testing.assert_close(actual, expected, **CLOSE)
    assert (expected - plain).abs().max() > 0.1


def test_arrow_equals_the_slow_reference(quantized_base, folders, slow_logits, prompts) -> None:
    mixture = make_arrow(quantized_base, folders, top_k=2)
    mixture.keeps_scalings = True
    with torch.no_grad():
        actual = mixture(prompts).logits
        expected = slow_logits(quantized_base.model, folders, mixture.last_scalings, prompts)
    torch.testing.assert_close(actual, expected, **CLOSE)
    greedy = {"max_new_tokens": 8, "do_sample": False, "eos_token_id": None}
    tokens = mixture.generate(prompts, use_cache=False, **greedy).tolist()
    assert mixture.generate(prompts, **greedy).tolist() == tokens


def test_generate_equals_generate_without_cache(mixture, prompts) -> None:
    greedy = {"max_new_tokens": 8, "do_sample": False, "eos_token_id": None}
    expected = mixture.generate(prompts, use_cache=False, **greedy).tolist()
    assert mixture.generate(prompts, **greedy).tolist() == expected
    assert mixture.generate(prompts, cache_implementation="static", **greedy).tolist() == expected


def test_router_gradient_equals_the_slow_references(
    mixture, quantized_base, folders, slow_logits, prompts
) -> None:
    before = _weights(quantized_base.model)
    mixture.train()
    mixture(prompts, labels=prompts).loss.backward()
    actual = {name: p.grad.clone() for name, p in mixture.named_parameters() if p.grad is not None}
    assert set(actual) == {f"router.{name}" for name, _ in mixture.router.named_parameters()}
    mixture.zero_grad()
    scalings = mixture.router(quantized_base.model.base_model(prompts).last_hidden_state)
    logits = slow_logits(quantized_base.model, folders, scalings, prompts)
    torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), prompts[:, 1:].flatten()).backward()
    for name, parameter in mixture.router.named_parameters():
        assert parameter.grad.abs().max() > 1e-4
        torch.testing.assert_close(actual[f"router.{name}"], parameter.grad, **CLOSE)
    for name, parameter in quantized_base.model.named_parameters():
        torch.testing.assert_close(parameter, before[name], rtol=0, atol=0)


def test_one_hot_equals_pefts_qlora(quantized_base, folders, prompts, tmp_path) -> None:
    bank = ExpertBank.from_folders(folders, quantized_base)
    mixture = MixtureForCausalLM.build(quantized_base, bank, ConstantRouter.one_hot(2, expert_count=4))
    with torch.no_grad():
        actual = mixture(prompts).logits
        other = load_base(str(tmp_path / "base"), quantized_base.quantization, device="cpu")
        lora = PeftModel.from_pretrained(other.model, str(folders["2"])).eval()
        torch.testing.assert_close(actual, lora(prompts).logits, **CLOSE)


def test_quantized_weights_are_shared(mixture, quantized_base) -> None:
    twin = mixture.twin.model.layers[0].self_attn.q_proj
    assert twin.base_layer is quantized_base.model.model.layers[0].self_attn.q_proj
    assert sum(p.numel() for p in mixture.base.parameters()) == sum(
        p.numel() for p in quantized_base.model.parameters()
    )
