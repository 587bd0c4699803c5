"""Arrow (Ostapenko et al. 2024, arXiv:2405.11157): routing from the experts' weights alone, without training.

The gate vector of an expert in a layer is the direction of inputs that its update B A lengthens most, its top
right singular vector. A token of that layer goes to the experts whose vectors have the largest |x v|; x is
not normalized, so how sharp the choice is depends on the length of the layer's inputs.

There are two Arrows. PEFT mixes the experts' outputs (combine="outputs"); mttl, the code of the paper, mixes
their matrices A and B separately by default (combine="matrices").
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from ..experts.adapter import read_expert
from ..experts.base_model import Base
from ..moe.bank import ExpertBank, read_matrices
from ..moe.layer_gates import Combine, LayerGateSettings, LayerRouter
from ..moe.mixture import MixtureForCausalLM


def make_arrow(
    base: Base,
    experts: Mapping[str, Path],
    *,
    top_k: int = 3,
    temperature: float = 1.0,
    combine: Combine = "outputs",
) -> MixtureForCausalLM:
    """Make an Arrow mixture; it answers in one pass and may be saved as any mixture.

    Args:
        base: The base that the experts were trained on.
        experts: PEFT adapter folder of each expert, by name.
        top_k: Most experts that share a token of a layer.
        temperature: Divides |x v| before the softmax over them; lower is sharper.
        combine: What is mixed: the experts' outputs or, for experts of one rank, their matrices.

    Raises:
        FinLoraError: If an expert cannot be read or does not fit the base, a setting is not allowed, or
            matrices of different ranks would be mixed.
    """
    settings = LayerGateSettings(score="absolute", top_k=top_k, temperature=temperature, combine=combine)
    bank = ExpertBank.from_folders(experts, base)
    return MixtureForCausalLM.build(base, bank, LayerRouter(settings, prototypes(bank)))


def prototypes(bank: ExpertBank) -> list[Float[Tensor, "expert _"]]:
    """Return Arrow's gate vectors for each adapted linear layer, zero where an expert does not adapt it.

    Args:
        bank: The experts, whose matrices are read again, since the bank may keep them in bfloat16.
    """
    matrices = [read_matrices(source.name, read_expert(source.folder)) for source in bank.sources]
    layers = []
    for module in bank.module_names:
        pairs = [one.get(module) for one in matrices]
        width = next(pair[0].shape[1] for pair in pairs if pair is not None)
        rows = [torch.zeros(width) if pair is None else top_right_singular_vector(*pair) for pair in pairs]
        layers.append(torch.stack(rows))
    return layers


def top_right_singular_vector(
    down: Float[Tensor, "rank d_in"], up: Float[Tensor, "d_out rank"]
) -> Float[Tensor, " d_in"]:
    """Return the unit vector that `up @ down` lengthens most, up to its sign; zero if it maps all to zero.

    With down^T = P R and up = Q S by QR, the right singular vectors of up @ down are P times those of the
    small S R^T, so the product is never formed.
    """
    directions, r_down = torch.linalg.qr(down.double().T)
    r_up = torch.linalg.qr(up.double(), mode="r").R
    _, values, right = torch.linalg.svd(r_up @ r_down.T, full_matrices=False)
    return ((values[0] > 0) * (directions @ right[0])).float()
