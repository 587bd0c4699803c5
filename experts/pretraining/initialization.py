"""Initial weights in which looking a value up by its name is one small step away.

A transformer finds a value by its name with two heads in series (an induction circuit: Elhage et al. 2021, "A
Mathematical Framework for Transformer Circuits"; Olsson et al. 2022, arXiv:2209.11895): a head of an early
layer copies the previous token into each position, a head of a later layer compares the asked name with
those copies and reads the value beside the match. From random weights the pair appears suddenly and late,
after more tokens than a CPU can train. So it is written into the initial weights, as Trockman and Kolter
(2023, arXiv:2305.09828) do for attention patterns in general; training then sharpens it, bends it, or drops
it.

Only low-frequency rotary dimensions compare contents, because they hardly turn over the length of a prompt;
only high-frequency ones look a fixed number of tokens back.
"""

from typing import Any

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

CONSTANT = 0.3
"""Value of dimension 0 in every embedding: the one direction that is the same for all tokens."""
_LOW_FREQUENCY = 2e-3
"""Radians a token below which a rotary pair counts as content-only (half a radian over 256 tokens)."""

_MATCHES = {
    1: ((0, 1), (1, 2), (2, 2), (3, 2)),
    2: ((0, 2), (0, 1), (1, 2), (4, 2)),
}
"""Layer to (asked, named) of its heads: a value follows its name directly, or after one separator."""


def initialize(config: LlamaConfig, seed: int) -> LlamaForCausalLM:
    """Return a model whose first layer looks back one token to four and whose next two compare such copies.

    Args:
        config: A Llama configuration with at least three layers and as many key heads as query heads.
        seed: Seed of every random projection.

    Raises:
        ValueError: If the configuration has too few layers or uses grouped keys.
    """
    if config.num_hidden_layers < 3 or config.num_key_value_heads != config.num_attention_heads:
        raise ValueError(
            "the look-up initialization needs three layers or more and one key head for each query head"
        )
    torch.manual_seed(seed)
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        _embed(model, config)
        _Circuit(model, config).write()
    return model


def _embed(model: LlamaForCausalLM, config: LlamaConfig) -> None:
    weight = model.model.embed_tokens.weight
    weight.normal_(std=config.hidden_size**-0.5)
    weight[:, 0] = CONSTANT


class _Circuit:
    """Writes the heads; holds the bases in which copies of earlier tokens are kept apart."""

    def __init__(self, model: LlamaForCausalLM, config: LlamaConfig) -> None:
        self.layers: Any = model.model.layers
        self.heads, self.width = config.num_attention_heads, config.hidden_size
        self.head_width = self.width // self.heads
        pairs = self.head_width // 2
        rope: Any = config.rope_parameters
        base = rope["rope_theta"]
        self.frequency = base ** (-torch.arange(pairs) / pairs)
        self.parts = _orthogonal(self.width).split(self.head_width)
        # Every copy keeps the same part of a token, so that copies from different distances can be compared.
        self.part = self.parts[0]
        self.basis = {0: torch.eye(self.width)} | {
            distance: _orthogonal(self.width) for distance in range(1, self.heads + 1)
        }

    def write(self) -> None:
        """Fill the attention of layers 0 to 2; everything else keeps its random values."""
        for head in range(self.heads):
            self._look_back(head, head + 1)
        for layer, gain in ((1, 2.4), (2, 2.0)):
            for head in range(self.heads):
                self._match(layer, head, *_MATCHES[layer][head % 4], gain)

    def _slice(self, head: int) -> slice:
        return slice(head * self.head_width, (head + 1) * self.head_width)

    def _look_back(self, head: int, distance: int) -> None:
        """Let layer 0 attend to the token `distance` back and keep a part of it in a basis of its own."""
        attention, rows = self.layers[0].self_attn, self._slice(head)
        pairs = self.head_width // 2
        fast = self.frequency > 0.01
        amplitude = 1.8
        query, key = torch.zeros(self.head_width, self.width), torch.zeros(self.head_width, self.width)
        key[:pairs, 0] = amplitude * fast
        query[:pairs, 0] = amplitude * fast * torch.cos(self.frequency * distance)
        query[pairs:, 0] = -amplitude * fast * torch.sin(self.frequency * distance)
        attention.q_proj.weight[rows] = query
        attention.k_proj.weight[rows] = key
        attention.v_proj.weight[rows] = self.part
        attention.o_proj.weight[:, rows] = 0.1 * self.basis[distance] @ self.part.T

    def _match(self, layer: int, head: int, asked: int, named: int, gain: float) -> None:
        """Copy the token that has `named` back what this one has `asked` back (0 is the token itself)."""
        attention, rows = self.layers[layer].self_attn, self._slice(head)
        pairs = self.head_width // 2
        slow = (self.frequency < _LOW_FREQUENCY).nonzero().flatten()
        columns = torch.cat([slow, slow + pairs])
        probe = torch.linalg.qr(torch.randn(len(self.part), len(columns)))[0].T @ self.part
        query, key = torch.zeros(self.head_width, self.width), torch.zeros(self.head_width, self.width)
        query[columns] = gain * probe @ self.basis[asked].T
        key[columns] = gain * probe @ self.basis[named].T
        attention.q_proj.weight[rows] = query
        attention.k_proj.weight[rows] = key
        attention.v_proj.weight[rows] = self.parts[head]
        attention.o_proj.weight[:, rows] = 0.08 * self.parts[head].T


def _orthogonal(width: int) -> Tensor:
    """Return a random orthogonal matrix that leaves dimension 0, the constant, alone."""
    matrix = torch.zeros(width, width)
    matrix[0, 0] = 1.0
    matrix[1:, 1:] = torch.linalg.qr(torch.randn(width - 1, width - 1))[0]
    return matrix
