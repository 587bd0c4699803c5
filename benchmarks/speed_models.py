"""Models for the speed benchmark: one random base, random experts, and every way to run them."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, set_seed

from ..experts.base_model import Base, load_base
from ..experts.settings import ATTENTION_AND_MLP
from ..moe.bank import ExpertBank
from ..moe.mixture import MixtureForCausalLM
from ..moe.peft_xlora import export_peft_xlora
from ..moe.routing import ConstantRouter
from ..router.settings import XLoRASettings
from ..router.train import new_mixture
from .speed_shape import SpeedShape


def build_base(shape: SpeedShape) -> LlamaForCausalLM:
    """Make a base of that shape, with the same random weights at every call."""
    set_seed(0)
    config = LlamaConfig(
        hidden_size=shape.hidden_size,
        num_hidden_layers=shape.layers,
        intermediate_size=shape.intermediate_size,
        num_attention_heads=shape.heads,
        num_key_value_heads=max(1, shape.heads // 4),
        vocab_size=shape.vocabulary,
        max_position_embeddings=4096,
    )
    return LlamaForCausalLM(config).eval().requires_grad_(False)


def save_base(shape: SpeedShape, folder: Path, tokenizer_of: Base) -> Path:
    """Write the random base as a folder that `load_base` reads; the tokenizer is only carried along."""
    build_base(shape).save_pretrained(str(folder))
    tokenizer_of.tokenizer.save_pretrained(folder)
    return folder


def save_experts(
    model: PreTrainedModel, count: int, rank: int, folder: Path, base_name: str
) -> dict[str, Path]:
    """Write random PEFT adapters of all attention and MLP layers, by name."""
    folders = {}
    for index in range(count):
        out = folder / f"expert_{index}"
        if not out.exists():
            set_seed(index)
            config = LoraConfig(
                r=rank, lora_alpha=2 * rank, target_modules=list(ATTENTION_AND_MLP), init_lora_weights=False
            )
            adapter = get_peft_model(copy.deepcopy(model), config)
            adapter.peft_config["default"].base_model_name_or_path = base_name
            adapter.save_pretrained(str(out))
        folders[f"expert_{index}"] = out
    return folders


def peft_lora(folder: Path, base_folder: Path) -> nn.Module:
    """PEFT's own model of one expert."""
    return PeftModel.from_pretrained(load_base(str(base_folder), "none").model, str(folder)).eval()


def peft_xlora(mixture: MixtureForCausalLM, folder: Path, base_folder: Path) -> nn.Module:
    """PEFT's own X-LoRA model with the experts and the router of a mixture."""
    if not folder.exists():
        export_peft_xlora(mixture, folder)
    model = load_base(str(base_folder), "none").model
    # PEFT's X-LoRA refuses to run with a cache.
    model.config.use_cache = False
    return PeftModel.from_pretrained(model, str(folder)).eval()


def contenders(base_folder: Path, work: Path, rank: int, *, experts: int = 8) -> dict[str, nn.Module]:
    """Every model that is compared, by name, all on the same weights."""
    base = load_base(str(base_folder), "none")
    folders = save_experts(base.model, experts, rank, work / "experts", base.name)
    name, first = next(iter(folders.items()))
    exact = new_mixture(base, folders, XLoRASettings(), seed=0)
    one_expert = ConstantRouter.one_hot(0, expert_count=1)
    return {
        "base": base.model,
        "peft_lora": peft_lora(first, base_folder),
        "lora": MixtureForCausalLM.build(base, ExpertBank.from_folders({name: first}, base), one_expert),
        "exact": exact,
        "exact_top2": new_mixture(base, folders, XLoRASettings(top_k=2), seed=0),
        "peft_xlora": peft_xlora(exact, work / "peft_xlora", base_folder),
    }


def random_prompt(base_vocabulary: int, length: int) -> torch.Tensor:
    """One random prompt, the same for all models."""
    generator = torch.Generator().manual_seed(length)
    return torch.randint(3, base_vocabulary, (1, length), generator=generator)
