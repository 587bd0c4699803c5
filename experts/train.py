"""Train one LoRA expert on one task: TRL's SFTTrainer and PEFT on a frozen base, quantized or not.

The result is an ordinary PEFT adapter folder plus `expert.json`, which says how it came about. Start reading
at `train_expert`. Variants: LoRA (Hu et al. 2021, arXiv:2106.09685), on a quantized base QLoRA (Dettmers et
al. 2023, arXiv:2305.14314), rsLoRA (Kalajdzievski 2023, arXiv:2312.03732), DoRA (Liu et al. 2024,
arXiv:2402.09353).
"""

import dataclasses
import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import set_seed
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from .adapter import CONFIG_FILE, METADATA_FILE, WEIGHTS_FILE, sort_targets
from .atomic_write import write_json
from .base_model import Base, linear_layer_names
from .batching import SimilarLengthSampler
from .encoding import Encoded, encode_examples, token_limit
from .errors import FinLoraError
from .processes import join_processes
from .provenance import examples_sha256, source_commit
from .run_folder import RunFolder, open_run
from .settings import ExpertSettings
from .tasks.task import Example
from .training import answer_loss, batch_of_all_processes, run_training, trainer_arguments

logger = logging.getLogger(__name__)


def train_expert(
    task_name: str,
    examples: Sequence[Example],
    base: Base,
    out: Path,
    settings: ExpertSettings | None = None,
    *,
    task_version: int = 1,
    progress: bool = True,
) -> Path:
    """Train an expert and write its folder; repeat the call to resume it after an interruption.

    The loss is that of the answers only. The base is left as it was. Several processes train together.

    Args:
        task_name: What the expert is for; also names several tasks trained together, such as "multitask".
        examples: Training examples; those too long for the base are left out and counted, never cut.
        base: The base to adapt.
        out: Folder to create, or that of the same run to resume.
        settings: Shape and training; by default `ExpertSettings()`.
        task_version: Version of the task's prompts and scorer.
        progress: Whether to show a progress bar.

    Returns:
        The folder: `adapter_config.json`, `adapter_model.safetensors`, `expert.json`.

    Raises:
        FinLoraError: If there is no usable example, a target layer is missing in the base, or the folder is
            finished, holds another run, or lies on a full disk.
    """
    settings = settings or ExpertSettings()
    _check_targets(base, settings)
    encoded = _encode(examples, base, task_name)
    processes = join_processes(base.model.device)
    record = {
        "task": task_name,
        "task_version": task_version,
        "base": base.name,
        "base_revision": base.revision,
        "quantization": base.quantization,
        "data_sha256": examples_sha256(examples),
        "settings": settings.record(),
        "processes": processes.count,
    }
    run = open_run(Path(out), record, result=METADATA_FILE, processes=processes)
    with _adapted(base, settings) as model:
        history = _train(model, encoded, base, run, settings, name=task_name, progress=progress)
        metadata = record | {
            "settings": dataclasses.asdict(settings),
            "n_examples": len(encoded),
            "n_too_long": len(examples) - len(encoded),
            "losses": history,
            "seconds": history[-1]["seconds"] if history else 0.0,
            "seed": settings.seed,
            "commit": source_commit(),
        }
        if processes.is_first:
            _write_expert(model, base, run, metadata)
    processes.meet()
    return run.out


class ExpertTrainer(SFTTrainer):
    """TRL's trainer with batches of similar length whose order survives resuming."""

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> SimilarLengthSampler:
        dataset: Any = self.train_dataset if train_dataset is None else train_dataset
        lengths = [len(row) for row in dataset["input_ids"]]
        return SimilarLengthSampler(lengths, batch_of_all_processes(self.args), seed=self.args.seed)

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """Return the loss of the answers, scaled for the devices that share the step."""
        head = self.accelerator.unwrap_model(model).get_output_embeddings()
        loss = answer_loss(model, head, inputs, n_labels=num_items_in_batch)
        return loss if num_items_in_batch is None else loss * self.accelerator.num_processes

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Skip the Trainer's estimate: on a small base it costs more than the optimizer."""
        return 0

    def create_model_card(self, *_args: Any, **_settings: Any) -> None:
        """Write no card for a checkpoint; the expert's own record is `expert.json`."""


def _check_targets(base: Base, settings: ExpertSettings) -> None:
    known = linear_layer_names(base.model)
    missing = [target for target in settings.targets if target not in known]
    if missing or not settings.targets:
        raise FinLoraError(
            f"The base {base.name} has no layer {', '.join(missing) or 'to adapt'}; its linear layers are "
            f"{', '.join(known)}: choose targets among them."
        )


def _encode(examples: Sequence[Example], base: Base, task_name: str) -> list[Encoded]:
    limit = token_limit(base.model.config)
    encoded = [row for row in encode_examples(base.tokenizer, examples) if len(row.input_ids) <= limit]
    too_long = len(examples) - len(encoded)
    if not encoded:
        reason = f"all {too_long} are longer than its {limit} tokens" if too_long else "there are none"
        raise FinLoraError(f"No training example of {task_name} for the base {base.name}: {reason}.")
    if too_long:
        logger.warning(
            "%s: %d of %d examples are longer than the %d tokens of the base and are left out.",
            task_name,
            too_long,
            len(examples),
            limit,
        )
    return encoded


@contextmanager
def _adapted(base: Base, settings: ExpertSettings) -> Iterator[PeftModel]:
    """The base with a fresh adapter; afterwards it is as it was, whatever happened."""
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=settings.rank,
        lora_alpha=settings.alpha,  # pyright: ignore[reportArgumentType]
        lora_dropout=settings.dropout,
        target_modules=list(settings.targets),
        use_rslora=settings.method == "rslora",
        use_dora=settings.method == "dora",
    )
    set_seed(settings.seed)
    forward = base.model.__dict__.get("forward")
    model: Any = get_peft_model(base.model, config)
    try:
        with warnings.catch_warnings():
            # PEFT 0.21 and TRL 1.16 still use names that transformers 5.23 is going to drop.
            warnings.filterwarnings("ignore", r".*gradient_checkpointing", FutureWarning)
            yield model
    finally:
        model.unload()
        # TRL puts a forward with a fused output layer on the model itself.
        base.model.__dict__.pop("forward", None)
        if forward is not None:
            base.model.forward = forward
        if settings.gradient_checkpointing:
            base.model.disable_input_require_grads()
            base.model.gradient_checkpointing_disable()
        base.model.requires_grad_(False).eval()


def _train(
    model: PeftModel,
    encoded: list[Encoded],
    base: Base,
    run: RunFolder,
    settings: ExpertSettings,
    *,
    name: str,
    progress: bool,
) -> list[dict[str, int | float]]:
    arguments = trainer_arguments(settings, run, base.model.device, name=name, progress=progress)
    trainer = ExpertTrainer(
        model=model,
        args=SFTConfig(
            **arguments,
            max_length=None,
            gradient_checkpointing=settings.gradient_checkpointing,
            dataset_kwargs={"skip_prepare_dataset": True},
        ),
        train_dataset=Dataset.from_dict(
            {"input_ids": [row.input_ids for row in encoded], "labels": [row.labels for row in encoded]}
        ),
        processing_class=base.tokenizer,
    )
    # On a quantized base TRL makes the adapter bfloat16, in which most steps of AdamW round to nothing.
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(torch.float32)
    return run_training(trainer, run)


def _write_expert(model: PeftModel, base: Base, run: RunFolder, metadata: dict[str, Any]) -> None:
    folder = run.scratch / "result"
    model.peft_config["default"].base_model_name_or_path = base.name
    model.save_pretrained(str(folder), save_embedding_layers=False)
    sort_targets(folder)
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        os.replace(folder / name, run.out / name)
    write_json(run.out / METADATA_FILE, metadata)
    run.finish()
