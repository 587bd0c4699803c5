"""The models that are timed: one random base, random experts, and every way to run them."""

from __future__ import annotations

import copy
import shutil
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import CompileConfig, LlamaConfig, LlamaForCausalLM, set_seed

from ...experts.base_model import EMBEDDED_BASE, Base, load_base, load_tokenizer
from ...experts.settings import ATTENTION_AND_MLP
from ...moe.bank import ExpertBank
from ...moe.mixture import MixtureForCausalLM
from ...moe.mode import EXACT, Mode
from ...moe.peft_xlora import export_peft_xlora
from ...moe.routing import ConstantRouter
from ...router.settings import XLoRASettings
from ...router.train import new_mixture
from .settings import SpeedShape

LONGEST = 16_384
"""Positions of the random base."""


def build_base(shape: SpeedShape) -> LlamaForCausalLM:
    """Make a base of that shape, with the same random weights at every call."""
    set_seed(0)
    config = LlamaConfig(
        hidden_size=shape.hidden_size,
        num_hidden_layers=shape.layers,
        intermediate_size=shape.intermediate_size,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.key_value_heads,
        vocab_size=shape.vocabulary,
        max_position_embeddings=LONGEST,
        # Nothing ends an answer before its length.
        bos_token_id=None,
        eos_token_id=None,
    )
    return LlamaForCausalLM(config).eval().requires_grad_(False)


@dataclass(frozen=True)
class Workshop:
    """Makes models of one shape, from files that it writes when they are first needed.

    Attributes:
        folder: Where the random base and experts lie.
        shape: Shape of both.
    """

    folder: Path
    shape: SpeedShape

    def base(self, quantization: str = "none") -> Base:
        """Load the random base; every call loads a model of its own."""
        return load_base(str(self._base_folder), quantization)

    @cached_property
    def _base_folder(self) -> Path:
        folder = self.folder / "base"
        if not (folder / "tokenizer_config.json").exists():
            build_base(self.shape).save_pretrained(str(folder))
            # Only carried along: prompts are random token ids. Written last, so a kill leaves no half base.
            load_tokenizer(EMBEDDED_BASE).save_pretrained(folder)
        return folder

    def sized(self, **sizes: int) -> Workshop:
        """The same base with another number or rank of experts."""
        return replace(self, shape=replace(self.shape, **sizes))

    def experts(self) -> dict[str, Path]:
        """Write random PEFT adapters of all attention and MLP layers, where they are not there yet.

        Returns:
            Their folders, by name.
        """
        rank = self.shape.rank
        folders = {
            f"expert_{index}": self.folder / f"rank_{rank}" / str(index)
            for index in range(self.shape.experts)
        }
        missing = [
            index
            for index, folder in enumerate(folders.values())
            if not (folder / "adapter_config.json").exists()
        ]
        model = build_base(self.shape) if missing else None
        for index in missing:
            set_seed(index)
            config = LoraConfig(
                r=rank, lora_alpha=2 * rank, target_modules=list(ATTENTION_AND_MLP), init_lora_weights=False
            )
            copied: Any = copy.deepcopy(model)
            adapter = get_peft_model(copied, config)
            adapter.peft_config["default"].base_model_name_or_path = str(self._base_folder)
            adapter.save_pretrained(str(folders[f"expert_{index}"]))
        return folders

    def lora(self, base: Base) -> MixtureForCausalLM:
        """Our own model of one expert: a bank of one, always chosen."""
        bank = ExpertBank.from_folders(self.sized(experts=1).experts(), base)
        return MixtureForCausalLM.build(base, bank, ConstantRouter.one_hot(0, expert_count=1))

    def mixture(self, base: Base, *, top_k: int | None = None, mode: Mode = EXACT) -> MixtureForCausalLM:
        """A mixture of the experts with a random router."""
        return new_mixture(base, self.experts(), XLoRASettings(top_k=top_k), seed=0, mode=mode)

    def peft_lora(self, quantization: str = "none", *, trainable: bool = False) -> Any:
        """PEFT's own model of one expert, on a base of its own."""
        folder = str(self.sized(experts=1).experts()["expert_0"])
        model = PeftModel.from_pretrained(self.base(quantization).model, folder, is_trainable=trainable)
        return model.train() if trainable else model.eval()

    def peft_xlora(self) -> Any:
        """PEFT's own X-LoRA model with the experts and the router of `mixture`, on a base of its own."""
        folder = self.folder / f"peft_xlora_{self.shape.experts}_{self.shape.rank}"
        if not (folder / "adapter_config.json").exists():
            shutil.rmtree(folder, ignore_errors=True)
            export_peft_xlora(self.mixture(self.base()), folder)
        model = self.base().model
        # PEFT's X-LoRA refuses to run with a cache.
        model.config.use_cache = False
        return PeftModel.from_pretrained(model, str(folder)).eval()

    def prompt(self, batch: int, length: int) -> torch.Tensor:
        """Random token ids (batch, length), the same for all models, where the models are."""
        generator = torch.Generator().manual_seed(length)
        ids = torch.randint(3, self.shape.vocabulary, (batch, length), generator=generator)
        return ids.to("cuda" if torch.cuda.is_available() else "cpu")


class Compiled:
    """A model whose decode steps transformers compiles, on the CPU too."""

    def __init__(self, model: Any):
        """Take a model that generates."""
        self.model = model
        settings: dict[str, Any] = {"fullgraph": True, "dynamic": False, "mode": None}
        self.config: Any = CompileConfig(**settings)
        self.config._compile_all_devices = True

    def generate(self, **inputs: Any) -> Any:
        """Generate with a static cache; the first call with a length compiles."""
        return self.model.generate(cache_implementation="static", compile_config=self.config, **inputs)
