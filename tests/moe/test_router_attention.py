"""A router that looks back: against plain loops, on windows, and where it does not fit the base."""

import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig

from finlora.experts.errors import FinLoraError
from finlora.moe.checkpoint import save_mixture
from finlora.moe.peft_xlora import export_peft_xlora
from finlora.moe.router_attention import RouterAttention, kind_of_place
from finlora.router import load_mixture

HEADS, HEAD_DIM, WIDTH = 2, 8, 12


def slow_attention(query: Tensor, key: Tensor, value: Tensor, window: int | None) -> Tensor:
    """One token, one head after the other; the second head has only the last features."""
    out = torch.zeros_like(value)
    for row in range(len(query)):
        for token in range(query.shape[1]):
            first = 0 if window is None else max(0, token - window + 1)
            for head in range(HEADS):
                part = slice(head * HEAD_DIM, min((head + 1) * HEAD_DIM, WIDTH))
                past = slice(first, token + 1)
                scores = key[row, past, part] @ query[row, token, part] / HEAD_DIM**0.5
                out[row, token, part] = scores.softmax(0) @ value[row, past, part]
    return out


def test_scalings_equal_plain_loops(any_base, make_mixture, prompts) -> None:
    mixture = make_mixture(any_base, context_width=WIDTH)
    router = mixture.router
    with torch.no_grad():
        mixture(prompts)
        hidden = any_base.model.base_model(prompts).last_hidden_state
        window = 6 if any_base.name == "mistral with a window" else None
        seen = slow_attention(router.query(hidden), router.key(hidden), router.value(hidden), window)
        outputs = router.linears[0](torch.cat([hidden, seen], dim=-1))
    expected = outputs.unflatten(-1, (router.module_count, -1)).softmax(-1)
    torch.testing.assert_close(mixture.last_scalings, expected, atol=1e-5, rtol=0)


def test_scalings_depend_on_earlier_tokens_and_not_on_later_ones(make_base, make_mixture, prompts) -> None:
    mixture = make_mixture(make_base(), context_width=WIDTH)
    changed = prompts.clone()
    changed[:, 5] = (changed[:, 5] + 1) % 256 + 3
    mixture(prompts)
    before = mixture.last_scalings
    mixture(changed)
    difference = (mixture.last_scalings - before).abs().amax(dim=(0, 2, 3))
    assert (difference[:5] == 0).all()
    assert (difference[5:] > 0).all()


def test_every_weight_of_the_router_learns(make_base, make_mixture, prompts) -> None:
    mixture = make_mixture(make_base(), context_width=WIDTH).train()
    mixture(prompts, labels=prompts).loss.backward()
    for name, parameter in mixture.router.named_parameters():
        # A bias on all keys alike changes no softmax.
        assert name == "key.bias" or parameter.grad.abs().max() > 0, name


def test_bfloat16_base_generates_in_batches_of_any_kind(make_base, make_mixture, prompts) -> None:
    base = make_base()
    base.model.to(torch.bfloat16)
    mixture = make_mixture(base, context_width=WIDTH)
    greedy = {"max_new_tokens": 4, "do_sample": False, "eos_token_id": None}
    assert mixture.generate(prompts, cache_implementation="static", **greedy).shape == (3, 15)


def test_saved_and_loaded(make_base, make_mixture, prompts, tmp_path) -> None:
    base = make_base()
    mixture = make_mixture(base, context_width=WIDTH)
    again = load_mixture(save_mixture(mixture, tmp_path / "mixture"), base=base)
    with torch.no_grad():
        assert torch.equal(again(prompts).logits, mixture(prompts).logits)


def test_more_features_than_the_base_keeps_are_refused(make_base, make_mixture) -> None:
    with pytest.raises(FinLoraError, match="context_width is 17, but this base keeps 16"):
        make_mixture(make_base(), context_width=17)


def test_peft_cannot_express_it(make_base, make_mixture, tmp_path) -> None:
    with pytest.raises(FinLoraError, match="without a context_width"):
        export_peft_xlora(make_mixture(make_base(), context_width=4), tmp_path / "out")


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({}, "full_attention"),
        ({"sliding_window": 6}, "sliding_attention"),
        ({"attention_chunk_size": 6}, "chunked_attention"),
        ({"layer_types": ["sliding_attention", "full_attention"]}, "full_attention"),
        ({"layer_types": ["linear_attention", "sliding_attention"]}, "sliding_attention"),
    ],
)
def test_the_place_is_of_a_kind_that_the_base_has(changes, kind) -> None:
    config = LlamaConfig(num_hidden_layers=2)
    for name, value in changes.items():
        setattr(config, name, value)
    assert kind_of_place(config) == kind
    assert RouterAttention(config, 4, 8).kind == kind


def test_a_base_without_attention_is_refused() -> None:
    config = LlamaConfig(num_hidden_layers=2)
    config.layer_types = ["linear_attention", "linear_attention"]
    with pytest.raises(FinLoraError, match="cannot look back on a base whose layers are linear_attention"):
        kind_of_place(config)
