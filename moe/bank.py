"""The expert bank: all experts' matrices, stacked for each adapted linear layer of the base.

The bank knows PEFT's adapter files and the base's module names; it does not know routers.
"""

import hashlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import LoraConfig
from peft.utils.other import get_pattern_key
from torch import Tensor, nn

from ..experts.adapter import ExpertFiles, read_expert
from ..experts.base_model import Base
from ..experts.errors import FinLoraError
from .expert_stacks import ExpertStacks

PEFT_PREFIX = "base_model.model."
BEYOND_LORA = {
    "use_dora": "DoRA rescales the base weight, which a sum of experts cannot do",
    "lora_bias": "its B matrices have biases",
    "modules_to_save": "it replaces whole modules of the base",
    "trainable_token_indices": "it changes token embeddings",
    "layer_replication": "it changes the number of layers",
    "target_parameters": "it adapts bare parameters",
    "fan_in_fan_out": "it adapts layers with transposed weights",
    "alora_invocation_tokens": "it is active only after certain tokens (aLoRA)",
    "use_qalora": "it pools its inputs (QALoRA)",
    "use_bdlora": "its matrices are block-diagonal (BD-LoRA)",
    "arrow_config": "it is an Arrow router, not an expert",
    "kasa_config": "it changes the base weight (KaSA)",
    "monteclora_config": "it samples its matrices (MonteCLoRA)",
    "velora_config": "it compresses its inputs (VeLoRA)",
}
"""Fields of a PEFT LoraConfig that change the mathematics of an expert, and how."""
BASE_CHANGING_INITS = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""Beginnings of init_lora_weights values after which the base's own weights differ from the published
ones."""


@dataclass(frozen=True, kw_only=True)
class ExpertSource:
    """Where an expert of the bank came from."""

    name: str
    folder: Path
    weights_sha256: str


class ExpertBank(nn.Module):
    """Frozen matrices of n experts; ranks and adapted linear layers may differ from expert to expert.

    Layer m of `stacks` is the base's linear layer `module_names[m]`, in the order of the base's
    `named_modules`, which is also the order of PEFT's X-LoRA.
    """

    def __init__(self, base: Base, experts: Mapping[str, ExpertFiles]):
        """Stack experts that were read; their order in the mapping is their number.

        Matrices are kept in bfloat16 for a bfloat16 base and in float32 for any other.

        Raises:
            FinLoraError: If an expert uses what a sum of experts cannot express, or was trained on another
                base.
        """
        super().__init__()
        if not experts:
            raise FinLoraError("A mixture needs at least one expert; none was given.")
        linears = dict(base.model.named_modules())
        deltas = {}
        for name, files in experts.items():
            refuse_beyond_lora(name, files.config)
            files.check_fits(base)
            deltas[name] = read_matrices(name, files)
            _check_linear(name, deltas[name], base)
        dtype = torch.bfloat16 if base.model.dtype == torch.bfloat16 else torch.float32
        self.expert_names = tuple(experts)
        self.module_names = tuple(name for name in linears if any(name in one for one in deltas.values()))
        self.stacks = ExpertStacks(
            [
                (
                    name,
                    [(index, *one[name]) for index, one in enumerate(deltas.values()) if name in one],
                    linears[name].weight.device,  # pyright: ignore[reportArgumentType]
                )
                for name in self.module_names
            ],
            expert_count=len(experts),
            dtype=dtype,
        )
        self.sources = tuple(
            ExpertSource(name=name, folder=files.folder, weights_sha256=hash_tensors(files.tensors))
            for name, files in experts.items()
        )

    @classmethod
    def from_folders(
        cls, folders: Mapping[str, Path], base: Base, *, trust_base_name: bool = False
    ) -> "ExpertBank":
        """Read PEFT adapter folders.

        Args:
            folders: Folder of each expert, by the expert's name; the order of the mapping numbers the
                experts.
            base: The base that all of them were trained on.
            trust_base_name: True accepts adapters that name another base, for one base known under two names.

        Raises:
            FinLoraError: If a folder cannot be read or its expert cannot join this mixture.
        """
        files = {name: read_expert(folder) for name, folder in folders.items()}
        for name, one in files.items():
            if not trust_base_name:
                check_base_name(name, one, base)
        return cls(base, files)

    @property
    def expert_count(self) -> int:
        """Number of experts."""
        return len(self.expert_names)

    @property
    def module_count(self) -> int:
        """Number of adapted linear layers."""
        return len(self.module_names)


def hash_tensors(tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of tensors' names, dtypes, shapes and bytes, whatever file they are stored in."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        digest.update(tensor.view(torch.uint8).numpy().tobytes() if tensor.numel() else b"")
    return digest.hexdigest()


def check_base_name(name: str, files: ExpertFiles, base: Base) -> None:
    """Compare the base's name, without its owner, where no hash of its weights is known.

    Raises:
        FinLoraError: If the expert names another base.
    """
    trained_on = files.config.base_model_name_or_path
    if not trained_on or (files.metadata or {}).get("base_revision"):
        return
    if Path(trained_on).name.lower() != Path(base.name).name.lower():
        raise FinLoraError(
            f"The expert {name} was trained on {trained_on}, not on {base.name}; load that base, or say that "
            "both are the same weights (trust_base_name)."
        )


def refuse_beyond_lora(name: str, config: LoraConfig) -> None:
    """Check that an expert's update is a plain product of two matrices, which may be summed with others.

    Raises:
        FinLoraError: If its config says otherwise.
    """
    for field, reason in BEYOND_LORA.items():
        if getattr(config, field, None):
            raise FinLoraError(
                f"The expert {name} cannot join a mixture, since {reason} ({field} is set); use it alone, or "
                "train it as plain LoRA or rsLoRA."
            )
    if config.bias != "none":
        raise FinLoraError(
            f"The expert {name} cannot join a mixture, since it changes biases of the base "
            f"(bias={config.bias!r}); train it with bias='none'."
        )
    init = str(config.init_lora_weights).lower()
    if init.startswith(BASE_CHANGING_INITS):
        raise FinLoraError(
            f"The expert {name} cannot join a mixture, since init_lora_weights={init!r} changed the weights "
            "of its base; convert it to plain LoRA with PEFT first."
        )


def read_matrices(name: str, files: ExpertFiles) -> dict[str, tuple[Tensor, Tensor]]:
    """Return A (rank, d_in) and scaled B (d_out, rank) by module name, in float32.

    Args:
        name: Of the expert, for messages.
        files: Of a plain LoRA or rsLoRA expert.

    Raises:
        FinLoraError: If the weights hold anything else, are incomplete, or contradict the config.
    """
    halves: dict[str, dict[str, Tensor]] = {}
    for key, tensor in files.tensors.items():
        module, separator, matrix = key.removeprefix(PEFT_PREFIX).rpartition(".lora_")
        if not separator or matrix not in ("A.weight", "B.weight") or tensor.ndim != 2:
            raise FinLoraError(
                f"The expert {name} holds {key}, which is not a LoRA matrix of a linear layer; a mixture "
                "takes only those."
            )
        halves.setdefault(module, {})[matrix[0]] = tensor.float()
    result = {}
    for module, half in halves.items():
        if set(half) != {"A", "B"} or half["A"].shape[0] != half["B"].shape[1]:
            raise FinLoraError(
                f"The expert {name} is damaged: {module} lacks lora_A or lora_B, or their ranks differ; copy "
                "or train it again."
            )
        result[module] = (half["A"], half["B"] * lora_scale(name, files.config, module, half["A"].shape[0]))
    return result


def lora_scale(name: str, config: LoraConfig, module: str, rank: int) -> float:
    """Return alpha / rank, or alpha / sqrt(rank) for rsLoRA, as PEFT resolves both patterns.

    Args:
        name: Of the expert, for messages.
        config: Its config.
        module: Name of the adapted layer.
        rank: That of the layer's weights.

    Raises:
        FinLoraError: If the config gives another rank.
    """
    ranks, alphas = config.rank_pattern or {}, config.alpha_pattern or {}
    expected_rank = ranks.get(get_pattern_key(list(ranks), module), config.r)
    alpha = alphas.get(get_pattern_key(list(alphas), module), config.lora_alpha)
    if rank != expected_rank:
        raise FinLoraError(
            f"The expert {name} is damaged: its config says rank {expected_rank} for {module}, its weights "
            f"have rank {rank}; copy or train it again."
        )
    return alpha / (math.sqrt(rank) if config.use_rslora else rank)


def _check_linear(name: str, module_names: Iterable[str], base: Base) -> None:
    head = base.model.get_output_embeddings()
    for module_name in module_names:
        module = base.model.get_submodule(module_name)
        if not isinstance(module, nn.Linear) or module is head:
            kind = "the output layer" if module is head else f"a {type(module).__name__}"
            raise FinLoraError(
                f"The expert {name} adapts {module_name}, {kind}; a mixture takes experts of the linear "
                "layers inside the decoder blocks only."
            )
