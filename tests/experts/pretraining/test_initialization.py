"""The initial weights look a fixed distance back before any training."""

import pytest
import torch
from transformers import LlamaConfig

from finlora.experts.pretraining.initialization import initialize


def config(layers: int = 4) -> LlamaConfig:
    return LlamaConfig(
        hidden_size=192,
        intermediate_size=256,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=4,
        vocab_size=512,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},
        tie_word_embeddings=True,
        attn_implementation="eager",
    )


def attentions(ids: torch.Tensor) -> tuple[torch.Tensor, ...]:
    model = initialize(config(), seed=0).eval()
    with torch.inference_mode():
        return model(input_ids=ids, output_attentions=True).attentions


@pytest.mark.parametrize(("head", "distance"), [(0, 1), (1, 2), (2, 3), (3, 4)])
def test_heads_of_the_first_layer_look_a_fixed_distance_back(head: int, distance: int) -> None:
    ids = torch.randint(10, 512, (1, 120), generator=torch.Generator().manual_seed(1))
    attention = attentions(ids)[0][0, head]
    looked_at = attention.argmax(-1)[distance:]
    expected = torch.arange(len(looked_at))
    assert (looked_at == expected).float().mean() > 0.7
    assert (looked_at - expected).abs().max() <= 1


def test_too_few_layers_are_refused() -> None:
    with pytest.raises(ValueError, match="three layers"):
        initialize(config(layers=2), seed=0)
