"""How alike the updates (delta W) of experts are: their directions, the spaces they live in, their signs.

Cosines and spaces come from the factors, so no update is formed for them; only signs need the update itself,
for one layer at a time. Experts that began from the same random A (the same seed) share a part of their row
spaces from the start, so their overlap is no evidence of related tasks by itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ...moe.merging.updates import Update, read_sources

MEASURES = {
    "cosine": "Cosine similarity",
    "row_overlap": "Overlap of row spaces",
    "column_overlap": "Overlap of column spaces",
    "sign_conflict": "Sign conflict",
}
"""Titles of the measures; what they are stands in `measure_similarity`."""


@dataclass(frozen=True)
class Similarity:
    """Every pair of experts under every measure; all matrices are symmetric.

    Attributes:
        experts: Names, in the order of rows and columns.
        layers: Names of the adapted linear layers, block by block.
        by_layer: For each measure its values; NaN at layers that not both experts adapt.
        overall: For each measure its value over all layers.
        chance: What each measure is on average for updates that have nothing to do with each other.
    """

    experts: tuple[str, ...]
    layers: tuple[str, ...]
    by_layer: Mapping[str, Float[np.ndarray, "layer expert expert"]]
    overall: Mapping[str, Float[np.ndarray, "expert expert"]]
    chance: Mapping[str, float]


def measure_similarity(folders: Mapping[str, Path]) -> Similarity:
    """Compare the updates of all pairs of experts.

    `cosine` is that of the updates as vectors, -1 to 1; over all layers they are one long vector.
    `row_overlap` and `column_overlap` are the mean squared cosine of the principal angles (Björck and Golub
    1973) between what two updates read and between what they write, 0 (orthogonal) to 1 (one space holds the
    other); over all layers their mean. `sign_conflict` is the share of entries whose signs differ, weighted
    by the product of both magnitudes, 0 to 1, over the entries of all layers that both adapt.

    Args:
        folders: PEFT adapter folder of each expert, by name.

    Raises:
        FinLoraError: There are fewer than two experts, one cannot be read, is not plain LoRA or rsLoRA, or
            they were trained on different bases.
    """
    experts = read_sources(folders)
    names = tuple(sorted({name for expert in experts for name in expert.updates}, key=_by_number))
    layers = [_compare([expert.updates.get(name) for expert in experts]) for name in names]
    with np.errstate(divide="ignore", invalid="ignore"):
        by_layer = {
            "cosine": np.stack([_cosine(layer.inner, layer.shared) for layer in layers]),
            "row_overlap": np.stack([layer.row_overlap for layer in layers]),
            "column_overlap": np.stack([layer.column_overlap for layer in layers]),
            "sign_conflict": np.stack([layer.opposed / layer.magnitude for layer in layers]),
        }
        inner = np.sum([layer.inner for layer in layers], axis=0)
        overall = {
            "cosine": _cosine(inner, np.ones(inner.shape, dtype=bool)),
            "row_overlap": _mean_of_known(by_layer["row_overlap"]),
            "column_overlap": _mean_of_known(by_layer["column_overlap"]),
            "sign_conflict": np.sum([layer.opposed for layer in layers], axis=0)
            / np.sum([layer.magnitude for layer in layers], axis=0),
        }
    chance = {
        "cosine": 0.0,
        "row_overlap": float(np.mean([one for layer in layers for one in layer.row_chance])),
        "column_overlap": float(np.mean([one for layer in layers for one in layer.column_chance])),
        "sign_conflict": 0.5,
    }
    return Similarity(tuple(folders), names, by_layer, overall, chance)


def inner_product(one: Update, other: Update) -> float:
    """Sum of the products of the entries of two updates: trace(A1^T B1^T B2 A2), from thin matrices alone."""
    ups = one.up.double().T @ other.up.double()
    downs = one.down.double() @ other.down.double().T
    return float((ups * downs).sum())


def principal_cosines(
    one: Float[Tensor, "d rank_1"], other: Float[Tensor, "d rank_2"]
) -> Float[Tensor, " angle"]:
    """Cosines of the principal angles between two spaces, largest first, one for each of the smaller rank.

    Args:
        one: Orthonormal columns that span the first space.
        other: Those of the second.
    """
    return torch.linalg.svdvals(one.T @ other).clamp(max=1.0)


def row_and_column_space(
    update: Update,
) -> tuple[Float[Tensor, "d_in rank"], Float[Tensor, "d_out rank"]]:
    """Orthonormal columns that span what an update reads (its rows) and what it writes (its columns).

    With up = Q S and down^T = P R by QR, the singular vectors of up @ down follow from those of the small
    S R^T. Directions of no weight are left out, so a rank that an expert does not use counts nothing.
    """
    q_up, r_up = torch.linalg.qr(update.up.double())
    q_down, r_down = torch.linalg.qr(update.down.double().T)
    left, values, right = torch.linalg.svd(r_up @ r_down.T)
    rank = int((values > values.max() * max(update.shape) * torch.finfo(torch.float32).eps).sum())
    return q_down @ right[:rank].T, q_up @ left[:, :rank]


@dataclass(frozen=True)
class _Layer:
    """What all pairs of experts have in common at one layer; matrices (expert, expert)."""

    shared: np.ndarray
    inner: np.ndarray
    row_overlap: np.ndarray
    column_overlap: np.ndarray
    opposed: np.ndarray
    magnitude: np.ndarray
    row_chance: list[float]
    column_chance: list[float]


def _compare(updates: Sequence[Update | None]) -> _Layer:
    count = len(updates)
    shared = np.zeros((count, count), dtype=bool)
    inner, opposed, magnitude = (np.zeros((count, count)) for _ in range(3))
    overlaps = np.full((2, count, count), np.nan)
    chances: tuple[list[float], list[float]] = ([], [])
    parts = [
        None if update is None else (update, row_and_column_space(update), update.dense())
        for update in updates
    ]
    for i, j in combinations_with_replacement(range(count), 2):
        first, second = parts[i], parts[j]
        if first is None or second is None:
            continue
        (one, spaces, dense), (other, other_spaces, other_dense) = first, second
        both = [i, j], [j, i]
        shared[both] = True
        inner[both] = inner_product(one, other)
        products = dense.double() * other_dense
        opposed[both] = float(products.clamp(max=0).abs().sum())
        magnitude[both] = float(products.abs().sum())
        for side, (mine, theirs) in enumerate(zip(spaces, other_spaces, strict=True)):
            if mine.shape[1] and theirs.shape[1]:
                overlaps[side][both] = float((principal_cosines(mine, theirs) ** 2).mean())
                if i != j:
                    chances[side].append(max(mine.shape[1], theirs.shape[1]) / mine.shape[0])
    return _Layer(
        shared=shared,
        inner=inner,
        row_overlap=overlaps[0],
        column_overlap=overlaps[1],
        opposed=opposed,
        magnitude=magnitude,
        row_chance=chances[0],
        column_chance=chances[1],
    )


def _by_number(layer: str) -> list[tuple[int, str]]:
    """Sorts block 10 after block 9."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in layer.split(".")]


def _cosine(inner: np.ndarray, known: np.ndarray) -> np.ndarray:
    lengths = np.sqrt(np.diagonal(inner))
    return np.where(known, inner / (lengths[:, None] * lengths), np.nan)


def _mean_of_known(values: np.ndarray) -> np.ndarray:
    known = ~np.isnan(values)
    return np.where(known, values, 0.0).sum(axis=0) / known.sum(axis=0)
