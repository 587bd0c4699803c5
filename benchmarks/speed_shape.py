"""Shape of the models of the speed benchmark, which is flags too. Importing this file imports no torch."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class SpeedShape:
    """Shape of a random Llama and of its experts."""

    hidden_size: int = 512
    """Width of the hidden states."""
    layers: int = 8
    """Decoder layers."""
    intermediate_size: int = 1408
    """Width inside the MLPs."""
    heads: int = 8
    """Query heads; a quarter of it are key and value heads."""
    vocabulary: int = 8192
    """Number of tokens."""
    rank: int = 8
    """Rank of every expert."""
