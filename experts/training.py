"""What training an expert and training a router share: settings, progress, checkpoints, resuming.

The loop itself is the Trainer of transformers; what is trained is decided in `experts/train.py` and
`router/train.py`.
"""

import errno
import importlib.util
import os
import shutil
import time
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError
from torch import Tensor
from transformers import PrinterCallback, ProgressCallback, Trainer, TrainerCallback, TrainingArguments

from .encoding import IGNORED_LABEL
from .errors import FinLoraError
from .run_folder import RunFolder
from .settings import TrainingSettings


def trainer_arguments(
    settings: TrainingSettings, run: RunFolder, device: torch.device, *, name: str, progress: bool
) -> dict[str, Any]:
    """Return keyword arguments of `TrainingArguments` for one run.

    Args:
        settings: What the user chose.
        run: Where checkpoints go.
        device: Where the model is.
        name: Name of the run for Weights & Biases.
        progress: Whether to show a progress bar.

    Raises:
        FinLoraError: If Weights & Biases is asked for but not installed.
    """
    if settings.report_to == "wandb":
        if importlib.util.find_spec("wandb") is None:
            raise FinLoraError(
                "Weights & Biases is not installed; run `pip install finlora[wandb]` or leave it out."
            )
        os.environ.setdefault("WANDB_PROJECT", "finlora")
    on_cpu = device.type == "cpu"
    return {
        "output_dir": str(run.scratch),
        "run_name": name,
        "learning_rate": settings.learning_rate,
        "lr_scheduler_type": settings.schedule,
        "warmup_steps": settings.warmup,
        "weight_decay": settings.weight_decay,
        "num_train_epochs": settings.epochs,
        "max_steps": settings.max_steps or -1,
        "per_device_train_batch_size": settings.batch_size,
        "gradient_accumulation_steps": settings.gradient_accumulation,
        "max_grad_norm": settings.max_gradient_norm,
        "seed": settings.seed,
        "save_strategy": "steps",
        "save_steps": settings.save_steps,
        # Several processes need batches of one size; what is left over in an epoch is repeated otherwise.
        "dataloader_drop_last": run.processes.count > 1,
        # The one before the last is the way back if a kill damages the last.
        "save_total_limit": 2,
        "logging_steps": settings.log_steps,
        "report_to": [] if settings.report_to == "none" else [settings.report_to],
        "disable_tqdm": not progress,
        "use_cpu": on_cpu,
        "bf16": not on_cpu and torch.cuda.is_bf16_supported(),
        "dataloader_pin_memory": not on_cpu,
    }


def run_training(trainer: Trainer, run: RunFolder) -> list[dict[str, int | float]]:
    """Train, from the last complete checkpoint if there is one.

    Args:
        trainer: Ready to train; its output folder is the scratch folder of the run.
        run: The run's folder.

    Returns:
        One record each `log_steps` steps, of the whole run: `step`, `loss`, `seconds` since the start, not
        counting what a kill lost.

    Raises:
        FinLoraError: If several processes have less than a batch to share, or the disk is full; what was
            saved stays and the run can be resumed.
    """
    _check_fills_a_batch(trainer, run)
    trainer.add_callback(EpochOfShards())
    trainer.add_callback(ElapsedSeconds())
    trainer.remove_callback(PrinterCallback)
    if trainer.pop_callback(ProgressCallback) is not None:
        trainer.add_callback(LossBar())
    checkpoint = run.last_checkpoint()
    try:
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    except (OSError, RuntimeError, SafetensorError) as error:
        if not _is_disk_full(error, run):
            raise
        raise FinLoraError(
            f"The disk is full: a checkpoint could not be written to {run.scratch}; free some space and "
            "repeat the "
            "command, it resumes from the checkpoint before."
        ) from error
    entries = [entry for entry in trainer.state.log_history if "loss" in entry]
    return [{key: entry[key] for key in ("step", "loss", "seconds")} for entry in entries]


def batch_of_all_processes(arguments: TrainingArguments) -> int:
    """Return the number of examples that all processes pass through the model at once.

    They are drawn as one batch, of which each process takes its part, so that several processes see what one
    process with larger batches sees.
    """
    return arguments.train_batch_size * arguments.world_size


def answer_loss(
    model: torch.nn.Module,
    head: torch.nn.Module,
    inputs: Mapping[str, Any],
    *,
    n_labels: Float[Tensor, ""] | Int[Tensor, ""] | int | None = None,
) -> Float[Tensor, ""]:
    """Return the mean next-token loss of the answers.

    The output layer runs on labelled positions only. On the CPU the usual way, which runs it on whole
    prompts, takes close to half of a training step of a small base (TRL 1.16 restricts it too, but only on
    GPUs).

    Args:
        model: A causal language model, possibly wrapped by PEFT or for several devices.
        head: Its output layer.
        inputs: A batch as `encoding.collate` makes it, and further arguments of the model.
        n_labels: What the sum of losses is divided by, if the batch is only part of a step; by default its
            own labels.
    """
    labels = inputs["labels"][:, 1:]
    labelled = labels != IGNORED_LABEL
    hook = head.register_forward_pre_hook(lambda _module, arguments: (arguments[0][:, :-1][labelled],))
    try:
        arguments = {key: value for key, value in inputs.items() if key != "labels"}
        logits = model(**arguments, use_cache=False).logits
    finally:
        hook.remove()
    total = torch.nn.functional.cross_entropy(logits.float(), labels[labelled], reduction="sum")
    return total / (labelled.sum() if n_labels is None else n_labels)


class EpochOfShards(TrainerCallback):
    """Tells the sampler which epoch begins.

    The Trainer tells it too, but misses it in a run of several processes that is resumed within an epoch
    (transformers 5.23, accelerate 1.15): the sampler then lies below one wrapper more.
    """

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Pass the epoch on through the loader of the whole epoch, which shares the sampler."""
        kwargs["train_dataloader"].set_epoch(int(state.epoch or 0))


class ElapsedSeconds(TrainerCallback):
    """Notes the training time at every record of the loss, and carries it on when a run is resumed."""

    def __init__(self) -> None:
        self.start = 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start the clock where the checkpoint stopped it."""
        earlier = state.log_history[-1].get("seconds", 0.0) if state.log_history else 0.0
        self.start = time.monotonic() - earlier

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Add the time to the newest record."""
        state.log_history[-1]["seconds"] = round(time.monotonic() - self.start, 3)


class LossBar(ProgressCallback):
    """The Trainer's progress bar with the loss in it, instead of a line of text at each record."""

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Show the newest loss."""
        if self.training_bar is not None and logs and "loss" in logs:
            self.training_bar.set_postfix(loss=f"{logs['loss']:.3f}")


def _check_fills_a_batch(trainer: Trainer, run: RunFolder) -> None:
    count, needed = len(trainer.train_dataset), batch_of_all_processes(trainer.args)  # pyright: ignore[reportArgumentType]
    if run.processes.count > 1 and count < needed:
        raise FinLoraError(
            f"{count} examples do not fill one batch of {trainer.args.train_batch_size} on each of "
            f"{run.processes.count} processes; lower batch_size, or start fewer processes."
        )


def _is_disk_full(error: Exception, run: RunFolder) -> bool:
    # Torch and safetensors hide the number of the system's error in their own exceptions.
    full = getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(error)
    return full or shutil.disk_usage(run.out).free < 2**16
