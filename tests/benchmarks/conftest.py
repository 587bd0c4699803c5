"""A finished run of invented answers, so that numbers and reports are tested without training anything."""

import importlib
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from finlora.benchmarks.layout import EXPERT_PREFIX, RunLayout
from finlora.benchmarks.methods import make_methods
from finlora.benchmarks.predictions import Prediction, Summary, write_predictions
from finlora.experts.tasks.suites import SUITES

TASKS = ("xbrl_tags", "xbrl_value", "finer", "headline")
SEEDS = (0, 1, 2)
ITEMS = 60


def chance_of_being_right(method: str, task: str) -> float:
    """What the invented methods can do."""
    hard = {"xbrl_tags": 0.98, "xbrl_value": 0.92, "finer": 0.85, "headline": 0.9}[task]
    if method.startswith(EXPERT_PREFIX):
        return hard if method == f"{EXPERT_PREFIX}{task}" else 0.15
    return {"base": 0.05, "uniform": 0.4, "multitask": 0.85, "xlora": 0.97}[method] * hard


def invent_cell(layout: RunLayout, method: str, seed: int | None, task: str) -> None:
    """Write the answers of one method to one task."""
    generator = random.Random(f"{method} {seed} {task}")
    luck = random.Random(task)
    predictions = []
    for index in range(ITEMS):
        right = 0.5 * generator.random() + 0.5 * luck.random() < chance_of_being_right(method, task)
        predictions.append(
            Prediction("a" if right else "b", "a", float(right), group=f"company {index // 3}")
        )
    summary = Summary(
        task=task,
        task_version=1,
        model=method,
        base="embedded",
        base_revision="0123456789abcdef",
        quantization="nf4",
        score=100 * sum(one.score for one in predictions) / ITEMS,
        n=ITEMS,
        too_long=3 if task == "finer" else 0,
        seconds=2.0,
        peak_bytes=900 * 2**20,
        answer_tokens=600,
        tokens_per_second=300.0,
        parameters=5_000_000
        + {"base": 0, "uniform": 400_000, "multitask": 400_000, "xlora": 430_000}.get(method, 100_000),
        examples_sha256=f"hash of {task}",
        commit="c0ffee",
    )
    write_predictions(layout.cell(method, seed, task), predictions, summary)


@pytest.fixture
def invented_run(tmp_path: Path) -> RunLayout:
    """The files that the jobs of a run leave, before its numbers are computed."""
    layout = RunLayout(tmp_path / "runs" / "invented")
    for method in make_methods(TASKS, SEEDS).values():
        if method.open is not None:
            for seed in method.seeds:
                for task in TASKS:
                    invent_cell(layout, method.name, seed, task)
    diagonal = [
        [0.85 if row == column else 0.05 for column in range(len(TASKS))] for row in range(len(TASKS))
    ]
    maps = {tokens: dict(zip(TASKS, diagonal, strict=True)) for tokens in ("prompt", "answer")}
    layout.routing.write_text(json.dumps({"experts": TASKS, "seeds": {str(seed): maps for seed in SEEDS}}))
    split = {"n": ITEMS, "sha256": "0" * 64}
    config = {
        "suite": "embedded",
        "tasks": TASKS,
        "base": "embedded",
        "quantization": "nf4",
        "seed": 0,
        "router_seeds": SEEDS,
        "resamples": 500,
        "budget": {
            "routers": {"xlora": {}},
            "test_examples": ITEMS,
            "expert": {"rank": 8, "targets": ["q_proj", "v_proj"]},
        },
        "data": {task: {"version": 1, "train": split, "test": split} for task in TASKS},
    }
    layout.config.write_text(json.dumps(config))
    return layout


@pytest.fixture
def job_costs() -> dict[str, dict[str, float]]:
    """What training cost in the invented run."""
    jobs = ["multitask", *(f"experts/{task}" for task in TASKS), *(f"routers/xlora/{seed}" for seed in SEEDS)]
    return {job: {"seconds": 10.0 * (number + 1), "peak_bytes": 2**30} for number, job in enumerate(jobs)}


@pytest.fixture(scope="session")
def base_folder(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: PreTrainedTokenizerFast) -> str:
    """A tiny random base on disk."""
    folder = tmp_path_factory.mktemp("base")
    config = LlamaConfig(
        vocab_size=len(tiny_tokenizer),
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=160,
        # Output embeddings far apart from each other are easy to tell apart for an adapter.
        initializer_range=0.15,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=2,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LlamaForCausalLM(config)
    model.save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def import_toy() -> Iterator[Callable[[str], ModuleType]]:
    """Imports a toy module of this folder by its name, so that workers of its runs can import it too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parent))
        yield importlib.import_module


@pytest.fixture(scope="module")
def toy(import_toy: Callable[[str], ModuleType]) -> Iterator[ModuleType]:
    """The toy benchmark, importable here and in its workers."""
    yield import_toy("toy_benchmark")
    SUITES.pop("toy", None)
