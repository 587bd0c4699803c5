"""What an expert, a router and an answer cost, computed from a base's config; nothing is measured.

The base is built on torch's meta device, which has shapes and no memory, so parameters are counted, not
guessed. Activations, logits and operations follow from the formulas below; a real run differs, and only a run
says by how much.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

from .errors import FinLoraError

HALF = 2
"""Bytes of a bfloat16 number."""

SINGLE = 4
"""Bytes of a float32 number."""

BYTES_PER_QUANTIZED_WEIGHT = {
    "none": 16 / 8,
    "int8": 8 / 8,
    # 4 bits, an 8-bit scale for 64 weights, and a 32-bit scale for 256 of those (Dettmers et al. 2023,
    # section 3).
    "nf4": (4 + 8 / 64 + 32 / (64 * 256)) / 8,
}

ADAMW_BYTES_PER_PARAMETER = 4 * SINGLE
"""Weight, gradient and two moments of one trained parameter, all in float32."""

LOGIT_BYTES = HALF + 3 * SINGLE
"""One logit while it is trained on: bfloat16, its float32 copy, the log-probability and the gradient."""


@dataclass(frozen=True)
class BaseSize:
    """What the config says about a base."""

    linear_weights: int
    """Weights in the linear layers of the decoder: those that are quantized and may carry experts."""
    other_weights: int
    """Embeddings, norms and output layer: kept in 16 bit."""
    output_weights: int
    """Weights of the output layer, which every token is multiplied with even where embeddings share them."""
    layers: int
    hidden: int
    intermediate: int
    key_value: int
    """Width of keys, and of values, of one layer."""
    vocabulary: int
    expert_parameters_per_rank: int
    """Sum of d_in + d_out over the adapted linear layers."""
    adapted_inputs: int
    """Sum of d_in alone."""
    adapted_layers: int
    """Number of adapted linear layers; a router per module has one output for each of them and expert."""
    largest_layer: int
    """Weights of the largest linear layer, which is dequantized as a whole."""

    def weight_bytes(self, quantization: str) -> float:
        """Bytes of the frozen base."""
        return self.linear_weights * BYTES_PER_QUANTIZED_WEIGHT[quantization] + self.other_weights * HALF

    def cache_bytes_per_token(self, passes: int) -> int:
        """Bytes of keys and values of one token; X-LoRA keeps two caches."""
        return passes * self.layers * 2 * self.key_value * HALF

    def forward_operations(self, tokens: int) -> int:
        """Floating-point operations of one sequence: 2 a weight and token, and causal attention."""
        attention = 2 * self.layers * self.hidden * tokens**2
        return 2 * (self.linear_weights + self.output_weights) * tokens + attention


@dataclass(frozen=True)
class Training:
    """What is trained on."""

    quantization: str
    """none, int8 or nf4."""
    batch_size: int
    """Examples in memory at once."""
    tokens: int
    """Tokens of an example, prompt and answer together."""
    examples: int
    """Number of examples."""
    epochs: float
    """Times that each is seen."""
    checkpointing: bool
    """Whether the backward pass computes activations again instead of keeping them."""


@dataclass(frozen=True)
class TrainingCost:
    """Memory and work of training one expert, or one router over several."""

    base_bytes: float
    trained_bytes: int
    """Trained parameters with gradients and optimizer state, and the frozen experts of a router."""
    activation_bytes: int
    logit_bytes: int
    operations: float
    """Floating-point operations in all."""

    @property
    def peak_bytes(self) -> float:
        """The sum; without the CUDA context (about half a gigabyte) and fragmentation."""
        return self.base_bytes + self.trained_bytes + self.activation_bytes + self.logit_bytes


def measure_config(config: PretrainedConfig, targets: Sequence[str]) -> BaseSize:
    """Count a base's parameters by building it without memory.

    Args:
        config: Of a decoder-only model of transformers.
        targets: Last names of the linear layers that get an expert.

    Raises:
        FinLoraError: If no layer has one of those names.
    """
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    linear = dict(decoder_linears(model))
    adapted = [layer for name, layer in linear.items() if name.rpartition(".")[2] in targets]
    if not adapted:
        names = sorted({name.rpartition(".")[2] for name in linear})
        raise FinLoraError(
            f"No linear layer is named {', '.join(targets)}; this base has {', '.join(names)}."
        )
    linear_weights = sum(layer.weight.numel() for layer in linear.values())
    text = config.get_text_config()
    head_width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return BaseSize(
        linear_weights=linear_weights,
        other_weights=sum(parameter.numel() for parameter in model.parameters()) - linear_weights,
        output_weights=text.vocab_size * text.hidden_size,
        layers=text.num_hidden_layers,
        hidden=text.hidden_size,
        intermediate=text.intermediate_size,
        key_value=head_width * (getattr(text, "num_key_value_heads", None) or text.num_attention_heads),
        vocabulary=text.vocab_size,
        expert_parameters_per_rank=sum(layer.in_features + layer.out_features for layer in adapted),
        adapted_inputs=sum(layer.in_features for layer in adapted),
        adapted_layers=len(adapted),
        largest_layer=max(layer.weight.numel() for layer in linear.values()),
    )


def decoder_linears(model: PreTrainedModel) -> Iterator[tuple[str, nn.Linear]]:
    """Every linear layer but the output layer."""
    output = model.get_output_embeddings()
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and module is not output:
            yield name, module


def activation_bytes(size: BaseSize, sequences: int, tokens: int, *, checkpointing: bool) -> int:
    """Bytes that the backward pass needs, in bfloat16, with attention that stores no score matrix.

    A frozen layer keeps, for each token, two float32 norm inputs, queries and attention output (6 hidden
    widths in bfloat16), keys and values, and 3 vectors of the intermediate width; every adapted linear keeps
    a float32 copy of its input. With gradient checkpointing (Chen et al. 2016, arXiv:1604.06174) a layer
    keeps its input only, and one layer at a time is recomputed. One quantized weight at a time is expanded.
    """
    frozen = HALF * (6 * size.hidden + 2 * size.key_value + 3 * size.intermediate)
    one_layer = frozen + SINGLE * size.adapted_inputs // size.layers
    kept = HALF * size.hidden * size.layers + one_layer if checkpointing else one_layer * size.layers
    return sequences * tokens * kept + HALF * size.largest_layer


def training_cost(
    size: BaseSize,
    plan: Training,
    trained_parameters: int,
    frozen_parameters: int = 0,
    *,
    cached_passes: int = 0,
) -> TrainingCost:
    """Compute memory and work of training over a frozen base.

    A frozen base needs no weight gradients, so its backward pass costs as much as the forward pass, not
    twice.

    Args:
        size: The base.
        plan: What is trained on.
        trained_parameters: Parameters with a gradient.
        frozen_parameters: Parameters of resident experts, in bfloat16.
        cached_passes: Forward passes whose result is kept from the first epoch on: a router's scaling pass.
    """
    passes = 3 if plan.checkpointing else 2
    return TrainingCost(
        base_bytes=size.weight_bytes(plan.quantization),
        trained_bytes=trained_parameters * ADAMW_BYTES_PER_PARAMETER + frozen_parameters * HALF,
        activation_bytes=activation_bytes(
            size, plan.batch_size, plan.tokens, checkpointing=plan.checkpointing
        ),
        logit_bytes=plan.batch_size * plan.tokens * size.vocabulary * LOGIT_BYTES,
        operations=plan.examples
        * (plan.epochs * passes + cached_passes)
        * size.forward_operations(plan.tokens),
    )


def decoding_bytes_per_token(
    size: BaseSize, quantization: str, passes: int, expert_parameters: int, tokens: int
) -> float:
    """Bytes that one more token of one sequence reads: the limit is the memory's speed over them.

    Args:
        size: The base.
        quantization: none, int8 or nf4.
        passes: 2 for X-LoRA, 1 for a single expert; experts act, and the output layer runs, in one of them.
        expert_parameters: Parameters of all resident experts, in bfloat16.
        tokens: Tokens already in the cache.
    """
    layers = size.linear_weights * BYTES_PER_QUANTIZED_WEIGHT[quantization]
    sixteen_bit = (size.output_weights + expert_parameters) * HALF
    return passes * layers + sixteen_bit + tokens * size.cache_bytes_per_token(passes)
