"""The computed costs, held against what torch, PEFT and bitsandbytes count on a small model."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, models
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from finlora.experts.base_model import load_base
from finlora.experts.cost_estimate import (
    Training,
    activation_bytes,
    decoding_bytes_per_token,
    measure_config,
    training_cost,
)
from finlora.experts.errors import FinLoraError

ALL_LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
LLAMA_8B = LlamaConfig(
    vocab_size=128256,
    hidden_size=4096,
    intermediate_size=14336,
    num_hidden_layers=32,
    num_attention_heads=32,
    num_key_value_heads=8,
    max_position_embeddings=131072,
)


def test_parameters_of_llama_8b_are_the_published_ones() -> None:
    """8.03 billion, of which the seven linear layers of each of 32 layers are quantized."""
    size = measure_config(LLAMA_8B, ALL_LAYERS)
    assert size.linear_weights + size.other_weights == 8_030_261_248
    assert size.adapted_layers == 7 * 32


def test_expert_parameters_equal_those_of_peft(tiny_llama: LlamaForCausalLM) -> None:
    """Rank times the sum of widths, as PEFT allocates them."""
    targets = ["q_proj", "down_proj"]
    size = measure_config(tiny_llama.config, targets)
    adapted = get_peft_model(tiny_llama, LoraConfig(r=4, target_modules=targets))
    assert 4 * size.expert_parameters_per_rank == adapted.get_nb_trainable_parameters()[0]


@pytest.mark.parametrize("quantization", ["nf4", "int8"])
def test_quantized_bytes_equal_those_of_bitsandbytes(
    make_tiny_llama: Callable[..., LlamaForCausalLM], tmp_path: Path, quantization: str
) -> None:
    """Weights and their scales, counted on a loaded base; the rest is float32 on a CPU and so left out."""
    model = make_tiny_llama(hidden_size=512, intermediate_size=1024)
    size = measure_config(model.config, ALL_LAYERS)
    model.save_pretrained(tmp_path)
    save_any_tokenizer(tmp_path)
    quantized = 0
    for module in load_base(str(tmp_path), quantization).model.modules():
        if type(module).__name__ == "Linear4bit":
            state = module.weight.quant_state
            scales = (state.absmax, state.state2.absmax)
            quantized += module.weight.nbytes + sum(scale.nbytes for scale in scales)
        elif type(module).__name__ == "Linear8bitLt":
            quantized += module.weight.nbytes
    computed = size.weight_bytes(quantization) - 2 * size.other_weights
    assert quantized == pytest.approx(computed, rel=0.01)


def save_any_tokenizer(folder: Path) -> None:
    """Write a tokenizer that `load_base` can load beside a model."""
    backend = Tokenizer(models.WordLevel({"<eos>": 0}, unk_token="<eos>"))
    PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<eos>").save_pretrained(folder)


def test_activations_are_near_what_autograd_keeps(make_tiny_llama: Callable[..., LlamaForCausalLM]) -> None:
    """Tensors saved for the backward pass of the decoder in bfloat16, without weights, within 10 percent."""
    model = make_tiny_llama(hidden_size=128, intermediate_size=512, num_hidden_layers=4).to(torch.bfloat16)
    weights = {parameter.data_ptr() for parameter in model.parameters()}
    model = get_peft_model(model, LoraConfig(r=1, target_modules=["q_proj", "v_proj"]))
    saved: dict[int, int] = {}
    # Keeping every tensor alive keeps addresses unique, so a tensor that two operations share counts once.
    alive: list[torch.Tensor] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.data_ptr() not in weights:
            alive.append(tensor)
            saved[tensor.data_ptr()] = tensor.nbytes
        return tensor

    tokens = torch.zeros(2, 256, dtype=torch.long)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model.model.model(input_ids=tokens)
    size = measure_config(model.config, ["q_proj", "v_proj"])
    computed = activation_bytes(size, 2, 256, checkpointing=False) - 2 * size.largest_layer
    assert sum(saved.values()) == pytest.approx(computed, rel=0.1)


def test_work_grows_with_examples_and_recomputation() -> None:
    """Twice the examples are twice the work; checkpointing adds one forward pass to two."""
    size = measure_config(LLAMA_8B, ALL_LAYERS)
    once, twice, kept = (
        training_cost(size, Training("nf4", 1, 100, examples, 1.0, checkpointing), 1).operations
        for examples, checkpointing in ((100, True), (200, True), (100, False))
    )
    assert twice == pytest.approx(2 * once)
    assert kept == pytest.approx(once * 2 / 3)
    assert once == pytest.approx(100 * 3 * 2 * 7.5e9 * 100, rel=0.02)
    two_epochs = Training("nf4", 1, 100, 100, 2.0, True)
    scaling_pass = training_cost(size, two_epochs, 1, cached_passes=1).operations - 2 * once
    assert scaling_pass == pytest.approx(once / 3)


def test_two_passes_read_the_layers_twice_and_the_output_once() -> None:
    """X-LoRA reads less than twice the bytes of a single pass."""
    size = measure_config(LLAMA_8B, ALL_LAYERS)
    one, two = (decoding_bytes_per_token(size, "none", passes, 1000, 0) for passes in (1, 2))
    assert two - one == 2 * size.linear_weights
    assert one == 2 * (size.linear_weights + size.output_weights + 1000)


def test_unknown_layer_names_are_answered_with_the_known_ones() -> None:
    """The message lists what the base has."""
    with pytest.raises(FinLoraError, match=r"No linear layer is named c_attn; this base has .*q_proj"):
        measure_config(LLAMA_8B, ["c_attn"])
