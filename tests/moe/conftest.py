"""Fixtures for mixtures: the slow reference, and bases of three architectures."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    ContinuousBatchingConfig,
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from finlora.experts.adapter import read_expert
from finlora.experts.base_model import Base
from finlora.moe.bank import ExpertBank
from finlora.moe.mixture import MixtureForCausalLM
from finlora.moe.mode import EXACT, Mode
from finlora.router.settings import XLoRASettings
from finlora.router.xlora import XLoRARouter

SIZES = {
    "vocab_size": 259,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 2,
}
SLIDING = {
    "use_sliding_window": True,
    "sliding_window": 6,
    "layer_types": ["full_attention", "sliding_attention"],
}
ARCHITECTURES = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SIZES)),
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**SIZES, **SLIDING)),
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**SIZES, head_dim=8)),
    "mistral with a window": lambda: MistralForCausalLM(MistralConfig(**SIZES, sliding_window=6)),
}


@pytest.fixture(params=ARCHITECTURES)
def any_base(request, tiny_tokenizer) -> Base:
    """A base of each architecture in turn; windows are shorter than the prompts of the tests."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = ARCHITECTURES[request.param]()
    return Base(model.requires_grad_(False).eval(), tiny_tokenizer, request.param, "revision-1", "none")


@pytest.fixture
def prompts() -> Tensor:
    """Three prompts of 11 tokens."""
    return torch.randint(3, 259, (3, 11), generator=torch.Generator().manual_seed(0))


@pytest.fixture
def varied_experts(make_expert) -> Callable[[PreTrainedModel], dict[str, Path]]:
    """A maker of three experts with different ranks, scales and adapted layers."""

    def make(model: PreTrainedModel) -> dict[str, Path]:
        def copy() -> PreTrainedModel:
            return type(model)(model.config)

        return {
            "a": make_expert(
                "a", seed=1, model=copy(), r=2, lora_alpha=8, target_modules=["q_proj", "v_proj"]
            ),
            "b": make_expert(
                "b", seed=2, model=copy(), r=5, lora_alpha=5, target_modules=["v_proj", "down_proj"]
            ),
            "c": make_expert("c", seed=3, model=copy(), r=3, use_rslora=True, target_modules="all-linear"),
        }

    return make


@pytest.fixture
def make_router() -> Callable[..., XLoRARouter]:
    """A maker of random X-LoRA routers for a bank; keywords are its settings."""

    def make(bank: ExpertBank, *, d_model: int = 32, **settings: object) -> XLoRARouter:
        router = XLoRARouter(
            XLoRASettings(**settings),  # pyright: ignore[reportArgumentType]
            d_model=d_model,
            module_count=bank.module_count,
            expert_count=bank.expert_count,
        )
        generator = torch.Generator().manual_seed(5)
        for parameter in router.parameters():
            parameter.data.copy_(torch.randn(parameter.shape, generator=generator) * 0.5)
        return router

    return make


@pytest.fixture
def make_mixture(varied_experts, make_router) -> Callable[..., MixtureForCausalLM]:
    """A maker of mixtures of the varied experts with a random X-LoRA router; keywords are its settings."""

    def make(base: Base, mode: Mode = EXACT, **settings: object) -> MixtureForCausalLM:
        bank = ExpertBank.from_folders(varied_experts(base.model), base)
        return MixtureForCausalLM.build(base, bank, make_router(bank, **settings), mode)

    return make


@pytest.fixture
def slow_logits() -> Callable[..., Tensor]:
    """Logits of base and experts by plain loops: one expert, one layer, one product after the other."""

    def compute(
        model: PreTrainedModel,
        folders: Mapping[str, Path],
        scalings: Tensor,
        input_ids: Tensor,
        **inputs: Tensor,
    ) -> Tensor:
        experts = [read_expert(folder) for folder in folders.values()]
        names = [
            name
            for name, _ in model.named_modules()
            if any(f"base_model.model.{name}.lora_A.weight" in expert.tensors for expert in experts)
        ]
        with ExitStack() as stack:
            for index, name in enumerate(names):
                layer_scalings = scalings[:, :, index if scalings.shape[2] > 1 else 0]

                def add_experts(
                    module: nn.Module,
                    args: tuple[Tensor],
                    output: Tensor,
                    name=name,
                    layer_scalings=layer_scalings,
                ) -> Tensor:
                    for number, expert in enumerate(experts):
                        down = expert.tensors.get(f"base_model.model.{name}.lora_A.weight")
                        if down is None:
                            continue
                        up = expert.tensors[f"base_model.model.{name}.lora_B.weight"]
                        rank, alpha = down.shape[0], expert.config.lora_alpha
                        scale = alpha / (rank**0.5 if expert.config.use_rslora else rank)
                        update = (args[0].float() @ down.T) @ up.T * scale
                        output = output + layer_scalings[:, :, number, None] * update
                    return output

                handle = model.get_submodule(name).register_forward_hook(add_experts)
                stack.callback(handle.remove)
            return model(input_ids, use_cache=False, **inputs).logits

    return compute


@pytest.fixture
def check_every_cache(prompts) -> Callable[[MixtureForCausalLM], None]:
    """Checks that a mixture generates the same tokens with no cache, a growing, a static and a paged one."""
    greedy = {"max_new_tokens": 10, "do_sample": False, "eos_token_id": None}

    def check(mixture: MixtureForCausalLM) -> None:
        expected = mixture.generate(prompts, use_cache=False, **greedy).tolist()
        assert mixture.generate(prompts, **greedy).tolist() == expected
        assert mixture.generate(prompts, cache_implementation="static", **greedy).tolist() == expected
        results = mixture.generate_batch(
            prompts.tolist(),
            generation_config=GenerationConfig(
                max_new_tokens=10, do_sample=False, eos_token_id=-1, pad_token_id=2
            ),
            continuous_batching_config=ContinuousBatchingConfig(
                page_size=32, num_blocks=32, max_batch_tokens=64
            ),
            progress_bar=False,
        )
        batched = {tuple(result.prompt_ids): result.generated_tokens for result in results.values()}
        assert [batched[tuple(prompt)] for prompt in prompts.tolist()] == [row[11:] for row in expected]

    return check
