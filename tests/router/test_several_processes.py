"""Training on two processes: who sees what, who writes, and that the result is that of one process."""

import dataclasses
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from finlora.experts.base_model import Base, load_base
from finlora.experts.encoding import encode_examples
from finlora.router import load_mixture

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """What both processes run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(HERE))
        import train_in_processes  # pyright: ignore[reportMissingImports]

        return train_in_processes


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: PreTrainedTokenizerFast) -> Base:
    """A tiny random base in a folder."""
    folder = tmp_path_factory.mktemp("base")
    config = LlamaConfig(
        vocab_size=len(tiny_tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=128,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=2,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        LlamaForCausalLM(config).save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    return load_base(str(folder), "none", device="cpu")


@pytest.fixture(scope="module")
def out(base: Base, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes wrote."""
    out = tmp_path_factory.mktemp("out")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*launch, str(HERE / "train_in_processes.py"), base.name, str(out)]
    done = subprocess.run(
        command, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture(scope="module")
def reports(out: Path) -> list[dict[str, Any]]:
    """What each process noted."""
    return [json.loads((out / f"report-{rank}.json").read_text()) for rank in (0, 1)]


def double(settings: Any) -> Any:
    """What one process needs to see the batches of two."""
    return dataclasses.replace(settings, batch_size=2 * settings.batch_size)


def losses(file: Path) -> list[float]:
    return [entry["loss"] for entry in json.loads(file.read_text())["losses"]]


def test_every_example_is_seen_once_an_epoch_by_one_process(
    script: ModuleType, base: Base, reports: list[dict[str, Any]]
):
    share = 3 * script.EXPERT.batch_size
    first, second = (report["rows"] for report in reports)
    assert len(first) == len(second) == script.EXPERT.max_steps * script.EXPERT.batch_size
    examples = Counter(
        tuple(row.input_ids) for row in encode_examples(base.tokenizer, script.EXAMPLES["sums"])
    )
    for start in (0, share):
        epoch = first[start : start + share] + second[start : start + share]
        assert Counter(map(tuple, epoch)) == examples
    assert first[:share] != first[share : 2 * share]


def test_two_processes_train_the_expert_of_one_with_twice_the_batch(
    script: ModuleType, base: Base, out: Path, tmp_path: Path
):
    one, two = script.expert(base, tmp_path / "one", double(script.EXPERT)), out / "unbroken"
    torch.testing.assert_close(
        load_file(two / "adapter_model.safetensors"),
        load_file(one / "adapter_model.safetensors"),
        rtol=1e-3,
        atol=1e-5,
    )
    assert losses(two / "expert.json") == pytest.approx(losses(one / "expert.json"), rel=1e-4)
    assert losses(two / "expert.json")[-1] < losses(two / "expert.json")[0]
    assert sorted(path.name for path in two.iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
        "expert.json",
    ]
    assert json.loads((two / "expert.json").read_text())["processes"] == 2


def test_two_processes_resume_to_the_same_expert(out: Path, reports: list[dict[str, Any]]):
    for report in reports:
        assert report["interrupted"] == "KeyboardInterrupt: "
        assert report["left"] == ["checkpoint-2", "checkpoint-4", "checkpoint-6", "run.json"]
    broken, unbroken = (
        load_file(out / name / "adapter_model.safetensors") for name in ("broken", "unbroken")
    )
    torch.testing.assert_close(broken, unbroken, rtol=0, atol=0)
    assert losses(out / "broken" / "expert.json") == losses(out / "unbroken" / "expert.json")


def test_gradient_checkpointing_gives_the_same_expert(out: Path):
    checkpointed, plain = (
        load_file(out / name / "adapter_model.safetensors") for name in ("checkpointed", "unbroken")
    )
    torch.testing.assert_close(checkpointed, plain, rtol=1e-3, atol=1e-5)


def test_two_processes_train_the_router_of_one_with_twice_the_batch(
    script: ModuleType, base: Base, out: Path, tmp_path: Path
):
    experts = {"sums": out / "unbroken", "words": out / "broken"}
    one = script.router(base, experts, tmp_path / "one", double(script.ROUTER))
    torch.testing.assert_close(
        load_mixture(out / "mixture", base=base).router.state_dict(),
        load_mixture(one, base=base).router.state_dict(),
        rtol=0,
        atol=1e-3,
    )
    assert losses(out / "mixture" / "router_training.json") == pytest.approx(
        losses(one / "router_training.json"), rel=1e-4
    )
    assert not (out / "mixture" / "training").exists()


def test_every_process_refuses_what_one_refuses(reports: list[dict[str, Any]]):
    for report in reports:
        assert "already holds a finished result" in report["finished"]
        assert "24 examples do not fill one batch of 13 on each of 2 processes" in report["too few"]
