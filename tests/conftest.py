"""Fixtures that every test may use: a tiny random Llama and a byte-level tokenizer, both built in code."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from finlora.experts.base_model import Base

SPECIAL_TOKENS = ("<bos>", "<eos>", "<pad>")


@pytest.fixture(scope="session")
def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer of one token a byte, plus beginning, end and padding: 259 tokens."""
    tokens = (*SPECIAL_TOKENS, *sorted(pre_tokenizers.ByteLevel.alphabet()))
    backend = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(list(SPECIAL_TOKENS))
    beginning, end, padding = SPECIAL_TOKENS
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token=beginning, eos_token=end, pad_token=padding, padding_side="left"
    )


@pytest.fixture
def make_tiny_llama() -> Callable[..., LlamaForCausalLM]:
    """A maker of frozen random Llamas in fp32; keyword arguments change the config, `seed` the weights."""

    def make(*, seed: int = 0, **changes: object) -> LlamaForCausalLM:
        settings: dict[str, object] = {
            "vocab_size": 256 + len(SPECIAL_TOKENS),
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
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = LlamaForCausalLM(LlamaConfig(**(settings | changes)))  # pyright: ignore[reportCallIssue]
        return model.requires_grad_(False).eval()

    return make


@pytest.fixture
def tiny_llama(make_tiny_llama: Callable[..., LlamaForCausalLM]) -> LlamaForCausalLM:
    """A frozen random Llama: 2 layers, width 32, vocabulary of `tiny_tokenizer`."""
    return make_tiny_llama()


@pytest.fixture
def make_base(make_tiny_llama: Callable[..., LlamaForCausalLM], tiny_tokenizer: PreTrainedTokenizerFast):
    """A maker of unquantized bases around tiny Llamas; keyword arguments go to `make_tiny_llama`."""

    def make(**changes: object) -> Base:
        return Base(make_tiny_llama(**changes), tiny_tokenizer, "tiny", "revision-1", "none")

    return make


@pytest.fixture
def make_expert(tmp_path: Path, make_tiny_llama: Callable[..., LlamaForCausalLM]):
    """A maker of random experts for the tiny base, saved by PEFT; keyword arguments go to its LoraConfig."""

    def make(name: str, *, seed: int, model: PreTrainedModel | None = None, **changes: object) -> Path:
        settings: dict[str, object] = {
            "r": 4,
            "lora_alpha": 8,
            "target_modules": ["q_proj", "v_proj", "o_proj", "up_proj", "down_proj"],
            "task_type": "CAUSAL_LM",
        }
        adapted = get_peft_model(model or make_tiny_llama(), LoraConfig(**(settings | changes)))  # pyright: ignore
        generator = torch.Generator().manual_seed(seed)
        for parameter_name, parameter in adapted.named_parameters():
            if ".lora_" in parameter_name:
                parameter.data.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
        adapted.save_pretrained(str(tmp_path / "experts" / name))
        return tmp_path / "experts" / name

    return make


KILL_AT_THIRD_CHECKPOINT = """
import os, signal
import torch

save, saved = torch.save, []
def kill_while_saving(content, file, **options):
    saved.append(file)
    if sum(str(name).endswith("optimizer.pt") for name in saved) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    save(content, file, **options)
torch.save = kill_while_saving
"""


@pytest.fixture
def run_killed_at_third_checkpoint() -> Callable[[str, Sequence[object]], None]:
    """Runs a training script, given JSON arguments, that is killed while it writes its third checkpoint."""

    def run(script: str, arguments: Sequence[object]) -> None:
        command = [sys.executable, "-c", KILL_AT_THIRD_CHECKPOINT + script, *map(json.dumps, arguments)]
        environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
        killed = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert killed.returncode == -signal.SIGKILL, killed.stderr

    return run
