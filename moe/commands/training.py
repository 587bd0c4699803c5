"""Commands that train: an expert, a router, the embedded base."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from ...experts.errors import FinLoraError
from ...experts.pretraining.settings import PretrainingSettings
from ...experts.settings import ExpertSettings
from ...router.settings import RouterTrainingSettings, XLoRASettings
from ..mode import EXACT, Mode
from .answering import Quantization

if TYPE_CHECKING:
    from ...experts.tasks import Example


def train_expert(
    task: Annotated[str, tyro.conf.arg(metavar="TASK")],
    /,
    out: Path,
    examples: Path | None = None,
    suite: str | None = None,
    base: str = "embedded",
    quantization: Quantization = "nf4",
    settings: Annotated[ExpertSettings, tyro.conf.arg(name="")] = ExpertSettings(),
) -> None:
    """Train one expert (LoRA adapter) on one task.

    Writes an ordinary PEFT adapter folder, which PEFT and vLLM load as it is, plus expert.json, which says
    how it came about. The same command goes on after an interruption. Several processes train together when
    torchrun or accelerate launch starts the command.

    Args:
        task: Name of the task, as `finlora tasks` lists them.
        out: Folder to write; a finished one is never overwritten.
        examples: JSONL file with `context` and `target`, such as `finlora data build` writes.
        suite: Train on a suite's examples instead: embedded or real.
        base: What to adapt: embedded, a local folder or a hub id such as meta-llama/Llama-3.1-8B-Instruct.
        quantization: How to store the base: 4 bit (nf4), 8 bit (int8) or as it is (none).
        settings: Shape of the expert and how it is trained.
    """
    from ...experts.base_model import load_base
    from ...experts.processes import join_processes
    from ...experts.tasks import get_task
    from ...experts.train import train_expert as train

    known_task = get_task(task)
    chosen = read_example_files({} if examples is None else {task: examples}, suite, [task])[task]
    loaded = load_base(base, quantization)
    folder = train(task, chosen, loaded, out, settings, task_version=known_task.version)
    if join_processes(loaded.model.device).is_first:
        print(f"expert written to {folder}")


def train_router(
    experts: tuple[Path, ...],
    out: Path,
    examples: dict[str, Path] = {},  # noqa: B006
    suite: str | None = None,
    base: str | None = None,
    quantization: Quantization | None = None,
    router: XLoRASettings = XLoRASettings(),
    mode: Mode = EXACT,
    settings: Annotated[RouterTrainingSettings, tyro.conf.arg(name="")] = RouterTrainingSettings(),
) -> None:
    """Train an X-LoRA router that mixes trained experts, and write the mixture.

    Base and experts stay as they are. The mixture's folder names them, and holds the router's weights. The
    same command goes on after an interruption. Several processes train together when torchrun or accelerate
    launch starts the command.

    Args:
        experts: Folders of the experts, all trained on the same base.
        out: Folder of the mixture to write; a finished one is never overwritten.
        examples: Task and JSONL file, for each task: xbrl_value value.jsonl finer finer.jsonl.
        suite: Train on the examples of a suite for the experts' tasks instead: embedded or real.
        base: Base of the mixture; by default the one that the experts were trained on.
        quantization: How to store the base; by default as the experts were trained.
        router: Shape of the router.
        mode: How the mixture runs; its router is trained for that.
        settings: How the router is trained.
    """
    from ...benchmarks.models import identify
    from ...experts.adapter import name_experts
    from ...experts.base_model import load_base
    from ...experts.processes import join_processes
    from ...router.train import new_mixture
    from ...router.train import train_router as train

    if len(experts) < 2:
        raise FinLoraError(f"A router mixes two or more experts; given: {len(experts)}.")
    folders = name_experts(experts)
    chosen = read_example_files(examples, suite, list(folders))
    first = identify(str(experts[0]))
    loaded = load_base(base or first.base, quantization or first.quantization)
    mixture = new_mixture(loaded, folders, router, seed=settings.seed, mode=mode)
    folder = train(mixture, chosen, out, settings)
    if join_processes(loaded.model.device).is_first:
        print(f"mixture written to {folder}")


def add_expert(
    mixture: Annotated[Path, tyro.conf.arg(metavar="MIXTURE")],
    expert: Annotated[Path, tyro.conf.arg(metavar="EXPERT")],
    /,
    out: Path,
    *,
    # tyro asks for the default itself; nothing here changes it.
    examples: dict[str, Path] = {},  # noqa: B006
    suite: str | None = None,
    settings: Annotated[RouterTrainingSettings, tyro.conf.arg(name="")] = RouterTrainingSettings(),
) -> None:
    """Add one more expert to a trained mixture; the router keeps what it knows of the others.

    Only the new expert's rows of the router's last layer are trained. The same command goes on after an
    interruption.

    Args:
        mixture: Folder of the mixture, which stays as it is.
        expert: Folder of the new expert, trained on the mixture's base.
        out: Folder of the mixture to write; a finished one is never overwritten.
        examples: Task and JSONL file, for the new expert's task and for others: finer finer.jsonl.
        suite: Train on the examples of a suite for all experts' tasks instead: embedded or real.
        settings: How the rows are trained.
    """
    from ...experts.adapter import name_experts
    from ...router import load_mixture
    from ...router.add_expert import add_expert as add

    loaded = load_mixture(mixture)
    name, folder = next(iter(name_experts([expert]).items()))
    chosen = read_example_files(examples, suite, [*loaded.bank.expert_names, name])
    print(f"mixture written to {add(loaded, name, folder, chosen, out, settings)}")


def pretrain_base(
    out: Annotated[Path, tyro.conf.arg(metavar="OUT")],
    /,
    *,
    filings: Path | None = None,
    start: Path | None = None,
    settings: Annotated[PretrainingSettings, tyro.conf.arg(name="")] = PretrainingSettings(),
) -> None:
    """Make a base like the embedded one: tokenizer, text, training, checks.

    Takes hours on a CPU and minutes on a GPU. Nobody needs it to use FinLoRA; it shows how the base that
    comes with the package was made. The same command goes on after an interruption.

    Args:
        out: Folder of the Hugging Face model to write.
        filings: Folder of inline XBRL documents whose prose joins the invented text; none by default.
        start: Base to go on from, made by this command; by default the weights are new.
        settings: Shape and course of the training.
    """
    from ...experts.pretraining.pretrain import pretrain_base as pretrain

    print(f"base written to {pretrain(out, filings, settings, start=start)}")


def read_example_files(
    files: dict[str, Path], suite: str | None, tasks: list[str]
) -> "dict[str, list[Example]]":
    """Read the examples that a user named, by task: from files, or those of tasks in a suite.

    Raises:
        FinLoraError: If both or neither were named, or something cannot be read.
    """
    from ...experts.tasks import get_task, read_examples
    from ...experts.tasks.suites import get_suite

    if bool(files) == (suite is not None):
        raise FinLoraError(
            "Give either --examples with a JSONL file or --suite with the name of a suite, not both."
        )
    if suite is not None:
        return {task: get_suite(suite).examples(task, "train") for task in tasks}
    return {get_task(task).name: read_examples(file) for task, file in files.items()}
