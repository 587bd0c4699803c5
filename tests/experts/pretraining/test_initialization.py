"""The initial weights look back and match names before any training."""

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


@pytest.mark.parametrize(("head", "distance"), [(0, 1), (1, 1), (2, 2), (3, 3)])
def test_heads_of_the_first_layer_look_a_fixed_distance_back(head: int, distance: int) -> None:
    ids = torch.randint(10, 512, (1, 120), generator=torch.Generator().manual_seed(1))
    attention = attentions(ids)[0][0, head]
    looked_at = attention.argmax(-1)[distance:]
    expected = torch.arange(len(looked_at))
    assert (looked_at == expected).float().mean() > 0.95


def test_a_head_of_the_second_layer_finds_what_followed_an_earlier_copy_of_the_token() -> None:
    ids = torch.randperm(500, generator=torch.Generator().manual_seed(2))[None, :60] + 10
    asked = torch.tensor([7, 23, 41])
    ids = torch.cat([ids, ids[:, asked]], dim=1)
    attention = attentions(ids)[1][0, 0, 60:]
    assert attention[:, :60].argmax(-1).tolist() == (asked + 1).tolist()


def test_too_few_layers_are_refused() -> None:
    with pytest.raises(ValueError, match="three layers"):
        initialize(config(layers=2), seed=0)
