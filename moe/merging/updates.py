"""Updates of linear layers as pairs of matrices: read from experts, laid side by side, cut to a rank."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from ...experts.adapter import ExpertFiles, read_expert
from ...experts.errors import FinLoraError
from ..bank import hash_tensors, lora_scale, read_matrices, refuse_beyond_lora


@dataclass(frozen=True)
class Update:
    """What is added to the weight of one linear layer: `up @ down`."""

    down: Float[Tensor, "rank d_in"]
    """A."""
    up: Float[Tensor, "d_out rank"]
    """B, with the scale multiplied in."""
    scale: float = 1.0
    """The scale that is in `up`: alpha / rank, or alpha / sqrt(rank) for rsLoRA."""

    @property
    def shape(self) -> tuple[int, int]:
        """(d_out, d_in) of the adapted weight."""
        return self.up.shape[0], self.down.shape[1]

    @property
    def rank(self) -> int:
        """Inner width."""
        return self.down.shape[0]

    def dense(self) -> Float[Tensor, "d_out d_in"]:
        """Return the update as one matrix."""
        return self.up @ self.down


@dataclass(frozen=True)
class Truncation:
    """What was lost where an update was cut to a rank, as Frobenius norms."""

    norm: float
    """Of the whole update."""
    lost: float
    """Of the difference between the whole and the cut update."""


@dataclass(frozen=True)
class Merged:
    """The merged update of one linear layer."""

    update: Update
    truncation: Truncation | None = None
    """None if the update is exact."""


@dataclass(frozen=True)
class SourceExpert:
    """An expert to be merged."""

    name: str
    files: ExpertFiles
    updates: Mapping[str, Update]
    """By name of the adapted linear layer."""
    weights_sha256: str


@dataclass(frozen=True)
class Part:
    """What one expert does to one linear layer, and how much of it is wanted."""

    expert: str
    weight: float
    update: Update


def read_sources(folders: Mapping[str, Path]) -> list[SourceExpert]:
    """Read experts that shall be merged.

    Args:
        folders: PEFT adapter folder of each expert, by name.

    Raises:
        FinLoraError: If there are fewer than two, one cannot be read, is not plain LoRA or rsLoRA, or holds
            numbers that are not finite, or they were trained on different bases.
    """
    if len(folders) < 2:
        raise FinLoraError(f"A merge takes two or more experts; given: {len(folders)}.")
    experts = [_read_source(name, folder) for name, folder in folders.items()]
    for expert in experts[1:]:
        _check_same_base(experts[0], expert)
    return experts


def layers(
    experts: Sequence[SourceExpert], weights: Sequence[float] | Mapping[str, Sequence[float]]
) -> Iterator[tuple[str, list[Part]]]:
    """Go through the linear layers that any expert adapts, with the experts that do.

    Args:
        experts: What is merged.
        weights: One for each expert: the same for all layers, or others by the name of each layer.
    """
    for name in dict.fromkeys(name for expert in experts for name in expert.updates):
        here = weights[name] if isinstance(weights, Mapping) else weights
        parts = [
            Part(expert.name, weight, expert.updates[name])
            for expert, weight in zip(experts, here, strict=True)
            if name in expert.updates
        ]
        yield name, parts


def concatenate(parts: Sequence[Part]) -> Update:
    """Return the weighted sum of updates, exactly: its rank is the sum of theirs."""
    return Update(
        torch.cat([part.update.down for part in parts], dim=0),
        torch.cat([part.weight * part.update.up for part in parts], dim=1),
    )


def truncate(update: Update, rank: int) -> Merged:
    """Return the nearest update of a rank (Eckart and Young 1936), without forming the product.

    With up = Q S and down^T = P R by QR, the singular values of up @ down are those of the small S R^T.
    """
    q_up, r_up = torch.linalg.qr(update.up.double())
    q_down, r_down = torch.linalg.qr(update.down.double().T)
    left, values, right = torch.linalg.svd(r_up @ r_down.T, full_matrices=False)
    return _keep(q_up @ left, values, right @ q_down.T, rank)


def factorize(delta: Float[Tensor, "d_out d_in"], rank: int | None) -> Merged:
    """Return a dense update as a pair of matrices: the nearest of a rank, or all of it.

    Args:
        delta: The dense update.
        rank: Rank of the result; None pairs the update with an identity matrix, which loses nothing.
    """
    if rank is not None:
        left, values, right = torch.linalg.svd(delta.double(), full_matrices=False)
        return _keep(left, values, right, rank)
    d_out, d_in = delta.shape
    if d_in <= d_out:
        return Merged(Update(torch.eye(d_in), delta))
    return Merged(Update(delta, torch.eye(d_out)))


def _keep(left: Tensor, values: Tensor, right: Tensor, rank: int) -> Merged:
    roots = values[:rank].sqrt()
    update = Update((roots[:, None] * right[:rank]).float(), (left[:, :rank] * roots).float())
    return Merged(update, Truncation(float(values.norm()), float(values[rank:].norm())))


def _read_source(name: str, folder: Path) -> SourceExpert:
    files = read_expert(folder)
    refuse_beyond_lora(name, files.config)
    broken = [key for key, tensor in files.tensors.items() if not bool(torch.isfinite(tensor).all())]
    if broken:
        raise FinLoraError(
            f"The expert {name} cannot be merged, since {broken[0]} holds numbers that are not finite; train "
            "it again."
        )
    updates = {
        module: Update(down, up, lora_scale(name, files.config, module, down.shape[0]))
        for module, (down, up) in read_matrices(name, files).items()
    }
    return SourceExpert(name, files, updates, hash_tensors(files.tensors))


def _check_same_base(first: SourceExpert, other: SourceExpert) -> None:
    metadata = [expert.files.metadata or {} for expert in (first, other)]
    revisions = [one.get("base_revision") for one in metadata]
    names = [str(expert.files.config.base_model_name_or_path or "") for expert in (first, other)]
    if all(revisions):
        differ = revisions[0] != revisions[1]
    else:
        # Without their owners, since one base may be published by several.
        differ = all(names) and Path(names[0]).name.lower() != Path(names[1]).name.lower()
    if differ:
        raise FinLoraError(
            f"The experts {first.name} and {other.name} were trained on different bases, {names[0]} "
            f"({revisions[0]}) and {names[1]} ({revisions[1]}); merge experts of one base."
        )
    for module, update in other.updates.items():
        if module in first.updates and first.updates[module].shape != update.shape:
            raise FinLoraError(
                f"The experts {first.name} and {other.name} were trained on different bases: the layer "
                f"{module} has {first.updates[module].shape} weights in one and {update.shape} in the other; "
                "merge experts of one base."
            )
