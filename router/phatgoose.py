"""PHATGOOSE (Muqeeth et al. 2024, arXiv:2402.05859): gates trained expert by expert, joined afterwards.

Each expert's gate learns on the expert's own task, with base and expert frozen: in every adapted layer,
sigmoid(v x) scales the expert's output for the layer's input x. Nothing is ever trained on several tasks, so
experts from different places can be joined. Used together, a token of a layer goes to the experts with the
largest LayerNorm(x) LayerNorm(v) / sqrt(d_in). Start reading at `train_phatgoose`.
"""

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from ..experts.atomic_write import write_json
from ..experts.base_model import Base
from ..experts.errors import FinLoraError
from ..experts.provenance import examples_sha256, source_commit
from ..experts.run_folder import RunFolder, is_finished, open_run
from ..experts.tasks.task import Example
from ..moe.bank import ExpertBank
from ..moe.checkpoint import MIXTURE_FILE, read_mixture, save_mixture
from ..moe.layer_gates import LayerGateSettings, LayerRouter
from ..moe.mixture import MixtureForCausalLM
from .settings import PhatgooseSettings, RouterTrainingSettings
from .train import RESULT_FILE as GATE_RESULT_FILE
from .train import train_router

RESULT_FILE = "phatgoose_training.json"


def train_phatgoose(
    base: Base,
    experts: Mapping[str, Path],
    examples_by_task: Mapping[str, Sequence[Example]],
    folder: Path,
    settings: PhatgooseSettings | None = None,
    *,
    progress: bool = True,
) -> Path:
    """Train one gate an expert and write the mixture of all; repeat the call to resume it.

    Args:
        base: The base that the experts were trained on.
        experts: PEFT adapter folder of each expert, by the name of its task.
        examples_by_task: Training examples of these tasks; those too long for the base are left out and
            counted, never cut.
        folder: Folder to create, or that of the same run to resume; finished gates are not trained again.
        settings: How to train; by default `PhatgooseSettings()`.
        progress: Whether to show progress bars.

    Returns:
        The folder: `mixture.json`, `router.safetensors`, and `phatgoose_training.json` on how they came
        about.

    Raises:
        FinLoraError: If an expert has no examples or examples have no expert, an expert cannot be read or
            does not fit the base, no example fits the base, or the folder is finished, holds another run,
            or lies on a full disk.
    """
    settings = settings or PhatgooseSettings()
    _check_tasks(experts, examples_by_task)
    bank = ExpertBank.from_folders(experts, base)
    record = _record(base, bank, examples_by_task, settings)
    run = open_run(Path(folder), record, result=RESULT_FILE)
    gates = {}
    for name in tqdm(experts, desc="gates", unit="expert", disable=not progress):
        gates[name] = _gate_folder(run, bank, name)
        if not is_finished(gates[name], result=GATE_RESULT_FILE):
            chosen = examples_by_task[name]
            train_gate(base, name, experts[name], chosen, gates[name], settings, progress=progress)
    router = join_gates(bank, gates, top_k=settings.top_k)
    # A run killed after this point left a mixture of its own, which the same run may replace.
    (run.out / MIXTURE_FILE).unlink(missing_ok=True)
    save_mixture(MixtureForCausalLM.build(base, bank, router), run.out)
    write_json(run.out / RESULT_FILE, record | _describe(gates, settings))
    run.finish()
    return run.out


def train_gate(
    base: Base,
    name: str,
    expert: Path,
    examples: Sequence[Example],
    folder: Path,
    settings: PhatgooseSettings | None = None,
    *,
    progress: bool = True,
) -> Path:
    """Train the gate of one expert, which depends on no other expert; `join_gates` joins those of many.

    Args:
        base: The base that the expert was trained on.
        name: Name of its task.
        expert: Its PEFT adapter folder.
        examples: Training examples of its task.
        folder: Folder to create, or that of the same run to resume.
        settings: How to train; by default `PhatgooseSettings()`.
        progress: Whether to show a progress bar.

    Returns:
        The folder: a mixture of that expert alone with its sigmoid gate.

    Raises:
        FinLoraError: As `train_phatgoose`.
    """
    bank = ExpertBank.from_folders({name: expert}, base)
    mixture = MixtureForCausalLM.build(base, bank, untrained_gate(bank))
    training = _training_settings(settings or PhatgooseSettings())
    return train_router(mixture, {name: examples}, folder, training, progress=progress)


def untrained_gate(bank: ExpertBank) -> LayerRouter:
    """Return a router of sigmoid gates that all start at v = 0, so that an expert counts half."""
    layers = zip(bank.stacks.downs, bank.stacks.layout.group_sizes, strict=True)
    widths = [stack.get_parameter("down").shape[1] for stack, size in layers for _ in range(size)]
    vectors = [torch.zeros(bank.expert_count, width) for width in widths]
    return LayerRouter(LayerGateSettings(score="sigmoid"), vectors)


def join_gates(bank: ExpertBank, folders: Mapping[str, Path], *, top_k: int) -> LayerRouter:
    """Make the router of many experts from gates that were trained one by one.

    Its vectors are LayerNorm(v) / sqrt(d_in), so that nothing has to be done to them in a pass.

    Args:
        bank: The experts.
        folders: For each of them by name, a mixture of that expert alone with its sigmoid gate.
        top_k: Most experts that share a token of a layer.
    """
    gates = [_read_gate(folders[name]) for name in bank.expert_names]
    layers = []
    for module in bank.module_names:
        rows = [gate.get(module) for gate in gates]
        absent = torch.zeros(next(len(row) for row in rows if row is not None))
        layers.append(torch.stack([absent if row is None else standardize(row) for row in rows]))
    return LayerRouter(LayerGateSettings(score="standardized", top_k=top_k), layers)


def standardize(vector: Float[Tensor, " d_in"]) -> Float[Tensor, " d_in"]:
    """Return LayerNorm(v) / sqrt(d_in), without learned scale and shift."""
    return functional.layer_norm(vector, vector.shape) / math.sqrt(len(vector))


def _read_gate(folder: Path) -> dict[str, Tensor]:
    files = read_mixture(folder)
    return {
        module: files.router_weights[f"vectors.{index}"][0]
        for index, module in enumerate(files.module_names or ())
    }


def _gate_folder(run: RunFolder, bank: ExpertBank, name: str) -> Path:
    # By number, since the name of an expert may be anything.
    return run.scratch / f"gate-{bank.expert_names.index(name)}"


def _check_tasks(experts: Mapping[str, Path], examples_by_task: Mapping[str, Sequence[Example]]) -> None:
    if lonely := sorted(set(experts) ^ set(examples_by_task)):
        raise FinLoraError(
            "PHATGOOSE trains the gate of each expert on the task of its name; give an expert and examples "
            f"for each of {', '.join(lonely)}, or neither."
        )


def _training_settings(settings: PhatgooseSettings) -> RouterTrainingSettings:
    shared = {
        field.name: getattr(settings, field.name)
        for field in dataclasses.fields(settings)
        if field.name != "top_k"
    }
    return RouterTrainingSettings(**shared, cache_hidden_states=False)


def _record(
    base: Base,
    bank: ExpertBank,
    examples_by_task: Mapping[str, Sequence[Example]],
    settings: PhatgooseSettings,
) -> dict[str, Any]:
    return {
        "base": base.name,
        "base_revision": base.revision,
        "quantization": base.quantization,
        "experts": {source.name: source.weights_sha256 for source in bank.sources},
        "data_sha256": {task: examples_sha256(rows) for task, rows in examples_by_task.items()},
        "settings": settings.record(),
    }


def _describe(gates: Mapping[str, Path], settings: PhatgooseSettings) -> dict[str, Any]:
    records = {
        name: json.loads((folder / GATE_RESULT_FILE).read_text(encoding="utf-8"))
        for name, folder in gates.items()
    }
    kept = ("losses", "n_examples", "n_too_long", "seconds")
    return {
        "settings": dataclasses.asdict(settings),
        "gates": {name: {key: one[key] for key in kept} for name, one in records.items()},
        "seconds": sum(one["seconds"] for one in records.values()),
        "seed": settings.seed,
        "commit": source_commit(),
    }
