"""Settings of pretraining, which are flags too. Importing this file imports no torch."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class PretrainingSettings:
    """Shape of the base and course of its training; the defaults are those of its first run."""

    vocabulary: int = 4096
    """Number of tokens of the vocabulary."""
    hidden_size: int = 192
    """Width of the residual stream."""
    layers: int = 4
    """Number of decoder layers."""
    heads: int = 4
    """Number of attention heads."""
    intermediate_size: int = 512
    """Width of the gated MLP."""
    context: int = 1024
    """Longest sequence, in tokens."""
    steps: int = 2200
    """Optimizer steps."""
    rows: int = 8
    """Sequences of 256 tokens a step; one step in eight has a quarter of them, four times as long."""
    learning_rate: float = 1.5e-3
    """Peak of AdamW's learning rate, after 100 steps of warm-up; cosine to a twentieth."""
    first_stage_steps: int = 150
    """Steps at the start that train nothing but easy look-ups and copying."""
    filing_share: float = 0.12
    """Share of documents that are filing prose, where `filings` are given."""
    seed: int = 0
    """Seed of weights and text."""
    checkpoint_steps: int = 100
    """Steps between checkpoints and probes."""
