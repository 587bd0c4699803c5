"""Train a mixture's router on a mixture of tasks; base and experts are frozen.

The loss is the next-token loss of the answers, through the mixture, as in X-LoRA (Buehler and Buehler 2024,
arXiv:2402.07148); the router may also be told which expert an example belongs to. Start reading at
`train_router`.
"""

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset
from transformers import Trainer, TrainingArguments, set_seed

from ..experts.atomic_write import write_json
from ..experts.base_model import Base
from ..experts.batching import SimilarLengthSampler
from ..experts.encoding import Encoded, collate, encode_examples, prompt_lengths, token_limit
from ..experts.errors import FinLoraError
from ..experts.processes import join_processes
from ..experts.provenance import examples_sha256, source_commit
from ..experts.run_folder import RunFolder, open_run
from ..experts.tasks.task import Example
from ..experts.training import answer_loss, batch_of_all_processes, run_training, trainer_arguments
from ..moe.bank import ExpertBank, hash_tensors
from ..moe.checkpoint import MIXTURE_FILE, save_mixture
from ..moe.mixture import MixtureForCausalLM
from ..moe.mode import EXACT, Mode
from .hidden_state_cache import HiddenStateCache
from .label_warm_up import label_losses, warm_up
from .settings import RouterTrainingSettings, XLoRASettings
from .xlora import XLoRARouter

logger = logging.getLogger(__name__)

RESULT_FILE = "router_training.json"


@dataclasses.dataclass(frozen=True)
class RoutingExample:
    """One training example and the task it belongs to."""

    encoded: Encoded
    """Prompt and answer as token ids."""
    task: int
    """Number of the task's expert; for tasks without one, numbers above those of all experts."""


def new_mixture(
    base: Base, folders: Mapping[str, Path], settings: XLoRASettings, *, seed: int, mode: Mode = EXACT
) -> MixtureForCausalLM:
    """Make a mixture with an untrained X-LoRA router.

    Args:
        base: The base that the experts were trained on.
        folders: Folder of each expert, by name; the order numbers the experts.
        settings: Shape of the router.
        seed: Determines the router's initial weights.
        mode: How scalings come about; the router is to be trained in the mode in which it is used.

    Raises:
        FinLoraError: If an expert cannot be read or does not fit the base, or the mode does not.
    """
    bank = ExpertBank.from_folders(folders, base)
    set_seed(seed)
    router = XLoRARouter(
        settings,
        d_model=base.model.config.get_text_config().hidden_size,
        module_count=bank.module_count,
        expert_count=bank.expert_count,
    )
    return MixtureForCausalLM.build(base, bank, router, mode)


def train_router(
    mixture: MixtureForCausalLM,
    examples_by_task: Mapping[str, Sequence[Example]],
    out: Path,
    settings: RouterTrainingSettings | None = None,
    *,
    cache_folder: Path | None = None,
    progress: bool = True,
) -> Path:
    """Train the router and write the mixture's folder; repeat the call to resume it after an interruption.

    Args:
        mixture: Base, experts and a router, which goes on from its present weights.
        examples_by_task: Training examples; those too long for the base are left out and counted, never cut.
        out: Folder to create, or that of the same run to resume.
        settings: How to train; by default `RouterTrainingSettings()`.
        cache_folder: Where to keep hidden states of the scaling pass, so that the next router trained on the
            same base and examples finds them; by default they go when the run ends.
        progress: Whether to show progress bars.

    Returns:
        The folder: `mixture.json`, `router.safetensors`, and `router_training.json` on how they came about.

    Raises:
        FinLoraError: If the router has nothing to learn, there is no usable example, a task has no expert
            although its label is to be learned, or the folder is finished, holds another run, or lies on a
            full disk.
    """
    settings = settings or RouterTrainingSettings()
    _check_router(mixture, examples_by_task, settings)
    examples, n_too_long = _encode(mixture, examples_by_task)
    processes = join_processes(mixture.base.device)
    record = _record(mixture, examples_by_task, settings) | {"processes": processes.count}
    run = open_run(Path(out), record, result=RESULT_FILE, processes=processes)
    cache = None
    if settings.cache_hidden_states:
        encoded = [example.encoded for example in examples]
        folder = cache_folder or run.scratch
        folder.mkdir(parents=True, exist_ok=True)
        cache = HiddenStateCache.open(
            mixture, encoded, folder, batch_size=settings.batch_size, processes=processes, progress=progress
        )
    history = _train(mixture, examples, cache, run, settings, progress=progress)
    metadata = record | {
        "settings": dataclasses.asdict(settings),
        "n_examples": {task: len(rows) - n_too_long[task] for task, rows in examples_by_task.items()},
        "n_too_long": n_too_long,
        "losses": history,
        "seconds": history[-1]["seconds"] if history else 0.0,
        "seed": settings.seed,
        "commit": source_commit(),
    }
    if processes.is_first:
        # A run killed after this point left a mixture of its own, which the same run may replace.
        (run.out / MIXTURE_FILE).unlink(missing_ok=True)
        save_mixture(mixture, run.out)
        write_json(run.out / RESULT_FILE, metadata)
        run.finish()
    processes.meet()
    return run.out


class RoutingDataset(Dataset[int]):
    """Indices of examples; `RoutingCollator` turns them into batches."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> int:
        return index


@dataclasses.dataclass(frozen=True)
class RoutingCollator:
    """Makes right-padded batches with, if they are stored, the hidden states of the scaling pass."""

    examples: Sequence[RoutingExample]
    cache: HiddenStateCache | None
    pad_id: int

    def __call__(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """Return the batch of `collate`, `task` of shape (batch,), and `scaling_hidden_states` if stored."""
        batch = collate([self.examples[index].encoded for index in indices], self.pad_id)
        batch["task"] = torch.tensor([self.examples[index].task for index in indices])
        if self.cache is not None:
            states = [self.cache[index] for index in indices]
            batch["scaling_hidden_states"] = pad_sequence(states, batch_first=True)
        return batch


class RouterTrainer(Trainer):
    """The Trainer, with the router as all there is to train and to save."""

    def __init__(
        self, *, examples: Sequence[RoutingExample], settings: RouterTrainingSettings, **arguments: Any
    ):
        """Take the mixture as `model`, and examples and settings beside the Trainer's own arguments."""
        super().__init__(**arguments)
        self.examples = examples
        self.settings = settings
        # Losses are sums over a whole optimizer step, divided by its number of labels.
        self.model_accepts_loss_kwargs = True

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Tensor:
        """Return the loss of the answers plus the weighted penalties on the scalings."""
        mixture = self.accelerator.unwrap_model(model)
        task, batch = inputs["task"], {key: value for key, value in inputs.items() if key != "task"}
        batch["prompt_lengths"] = prompt_lengths(batch["labels"])
        routed: list[tuple[Any, ...]] = []
        hook = mixture.router.register_forward_pre_hook(lambda _module, inputs: routed.append(inputs))
        try:
            loss = answer_loss(model, mixture.get_output_embeddings(), batch, n_labels=num_items_in_batch)
        finally:
            hook.remove()
        if num_items_in_batch is not None:
            loss = loss * self.accelerator.num_processes
        if not _has_penalties(self.settings):
            return loss
        logits = mixture.router.logits(*routed[0]) / mixture.router.settings.temperature
        penalty = scaling_penalties(logits, batch["attention_mask"], task, self.settings)
        return loss + penalty / self.current_gradient_accumulation_steps

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Skip the Trainer's estimate, which goes through all parameters at every step."""
        return 0

    def _get_train_sampler(self, train_dataset: Any = None) -> SimilarLengthSampler:
        lengths = [len(example.encoded.input_ids) for example in self.examples]
        return SimilarLengthSampler(
            lengths,
            batch_of_all_processes(self.args),
            seed=self.args.seed,
            weights=example_weights(
                [example.task for example in self.examples], self.settings.task_temperature
            ),
        )

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Tensor] | None = None) -> None:
        folder = Path(output_dir or str(self.args.output_dir))
        folder.mkdir(parents=True, exist_ok=True)
        save_file(_router(self.model).state_dict(), folder / "router.safetensors")

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        weights = load_file(Path(resume_from_checkpoint) / "router.safetensors")
        _router(model or self.model).load_state_dict(weights)


def example_weights(tasks: Sequence[int], temperature: float) -> list[float]:
    """Return the relative chance of each example: a task of n examples gets n ** (1 / temperature) in all.

    Args:
        tasks: Number of the task of each example.
        temperature: 1 draws all examples alike, infinity all tasks alike.

    Example:
        >>> example_weights([0, 0, 0, 0, 1], temperature=2.0)
        [0.5, 0.5, 0.5, 0.5, 1.0]
    """
    counts = {task: tasks.count(task) for task in set(tasks)}
    return [counts[task] ** (1 / temperature) / counts[task] for task in tasks]


def scaling_penalties(
    logits: Float[Tensor, "batch token module slot"],
    token_mask: Int[Tensor, "batch token"],
    task: Int[Tensor, " batch"],
    settings: RouterTrainingSettings,
) -> Float[Tensor, ""]:
    """Return the weighted penalties on scalings, each averaged over tokens and modules.

    Args:
        logits: Outputs of the router before its softmax; slot e is expert e, a null expert comes last.
        token_mask: 1 for tokens, 0 for padding.
        task: Number of the expert that belongs to each example's task.
        settings: The weights.
    """
    log_shares = torch.log_softmax(logits.float(), dim=-1)[token_mask.bool()]
    shares = log_shares.exp()
    entropy = -(shares * log_shares).sum(-1).mean()
    # 0 if all slots are used alike over the batch, (slots - 1) if a single one is.
    balance = shares.shape[-1] * shares.mean(dim=(0, 1)).square().sum() - 1
    penalty = settings.balance_weight * balance + settings.entropy_weight * entropy
    if settings.label_weight:
        labels = task.repeat_interleave(token_mask.sum(dim=1))
        penalty = penalty + settings.label_weight * label_losses(log_shares, labels).mean()
    return penalty


def _has_penalties(settings: RouterTrainingSettings) -> bool:
    return any((settings.label_weight, settings.balance_weight, settings.entropy_weight))


def _uses_labels(settings: RouterTrainingSettings) -> bool:
    return bool(settings.label_weight or settings.label_steps)


def _router(mixture: Any) -> torch.nn.Module:
    return mixture.router


def _check_router(
    mixture: MixtureForCausalLM,
    examples_by_task: Mapping[str, Sequence[Example]],
    settings: RouterTrainingSettings,
) -> None:
    if not any(True for _ in mixture.router.parameters()):
        raise FinLoraError(f"A {mixture.router.name} router has no weights to train; give an X-LoRA router.")
    if (_has_penalties(settings) or settings.label_steps) and not isinstance(mixture.router, XLoRARouter):
        raise FinLoraError(
            "label_weight, label_steps, balance_weight and entropy_weight are for X-LoRA routers, this is "
            f"a {mixture.router.name} router; set them to 0."
        )
    unknown = [task for task in examples_by_task if task not in mixture.bank.expert_names]
    if _uses_labels(settings) and unknown:
        raise FinLoraError(
            f"label_weight and label_steps need an expert for each task, but {', '.join(unknown)} has none; "
            f"the experts are {', '.join(mixture.bank.expert_names)}."
        )


def _encode(
    mixture: MixtureForCausalLM, examples_by_task: Mapping[str, Sequence[Example]]
) -> tuple[list[RoutingExample], dict[str, int]]:
    limit = token_limit(mixture.config)
    names = mixture.bank.expert_names
    numbers = {
        task: names.index(task) if task in names else len(names) + position
        for position, task in enumerate(examples_by_task)
    }
    examples: list[RoutingExample] = []
    n_too_long = {}
    for task, rows in examples_by_task.items():
        encoded = encode_examples(mixture.origin.tokenizer, rows)
        fitting = [row for row in encoded if len(row.input_ids) <= limit]
        examples += [RoutingExample(row, numbers[task]) for row in fitting]
        n_too_long[task] = len(rows) - len(fitting)
        if not fitting:
            raise FinLoraError(
                f"No training example of {task} for the router: there are {len(rows)}, and "
                f"{n_too_long[task]} of them "
                f"are longer than the {limit} tokens of the base {mixture.origin.name}."
            )
        if n_too_long[task]:
            logger.warning(
                "%s: %d of %d examples are longer than the %d tokens of the base and are left out.",
                task,
                n_too_long[task],
                len(rows),
                limit,
            )
    if not examples:
        raise FinLoraError("A router needs examples of at least one task; none were given.")
    return examples, n_too_long


def _record(
    mixture: MixtureForCausalLM,
    examples_by_task: Mapping[str, Sequence[Example]],
    settings: RouterTrainingSettings,
) -> dict[str, Any]:
    return {
        "base": mixture.origin.name,
        "base_revision": mixture.origin.revision,
        "quantization": mixture.origin.quantization,
        "experts": {source.name: source.weights_sha256 for source in mixture.bank.sources},
        "router": mixture.router.settings_as_dict(),
        # Not the way in which it is used: draft gives the same answers as exact.
        **mixture.mode.trained_as.as_dict(),
        "initial_weights_sha256": hash_tensors(mixture.router.state_dict()),
        "data_sha256": {task: examples_sha256(rows) for task, rows in examples_by_task.items()},
        "settings": settings.record(),
    }


def _train(
    mixture: MixtureForCausalLM,
    examples: Sequence[RoutingExample],
    cache: HiddenStateCache | None,
    run: RunFolder,
    settings: RouterTrainingSettings,
    *,
    progress: bool,
) -> list[dict[str, int | float]]:
    mixture.requires_grad_(False)
    for parameter in mixture.router.learning_parameters():
        parameter.requires_grad_(True)
    pad_id: Any = mixture.origin.tokenizer.pad_token_id
    arguments = trainer_arguments(
        settings, run, mixture.base.device, name=f"{mixture.router.name}-router", progress=progress
    )
    trainer = RouterTrainer(
        examples=examples,
        settings=settings,
        model=mixture,
        args=TrainingArguments(
            **arguments,
            activation_checkpointing=settings.gradient_checkpointing,
            remove_unused_columns=False,
        ),
        train_dataset=RoutingDataset(len(examples)),
        data_collator=RoutingCollator(examples, cache, pad_id),
    )
    try:
        # A resumed run goes on from a router that was warmed up before its first checkpoint.
        if cache is not None and isinstance(mixture.router, XLoRARouter) and run.last_checkpoint() is None:
            encoded, tasks = [row.encoded for row in examples], [row.task for row in examples]
            warm_up(mixture.router, encoded, tasks, cache, settings, attend=mixture.router_attention)
        return run_training(trainer, run)
    finally:
        mixture.eval()
        mixture.router.requires_grad_(False)
