"""Commands about tasks and files of examples."""

from pathlib import Path
from typing import Annotated

import tyro

from ...experts.errors import FinLoraError


def tasks() -> None:
    """List the tasks: name, what is asked, and the suites that contain it."""
    from ...experts.tasks import TASKS
    from ...experts.tasks.suites import SUITES

    width = max(map(len, TASKS)) + 2
    for name, task in TASKS.items():
        suites = (
            ", ".join(suite.name for suite in SUITES.values() if name in suite.tasks) or "your own data only"
        )
        print(f"{name:<{width}}{task.title} ({suites})")
        print(f"{'':<{width}}source: {task.source}; licence: {task.licence}")


def data_build(
    task: Annotated[str, tyro.conf.arg(metavar="TASK")],
    /,
    source: Annotated[str, tyro.conf.arg(name="from", metavar="SOURCE")],
    out: Path,
) -> None:
    """Turn a published file or a filing into examples of a task.

    The result is JSONL, one example a line, with `context` (the prompt), `target` (the answer) and `group`
    (examples that belong together). `train-expert`, `evaluate` and `data check` read it.

    Args:
        task: Name of the task, as `finlora tasks` lists them.
        source: A data set's own file, FinLoRA's JSONL file, or the folder of an XBRL filing.
        out: File to write; it must not exist.
    """
    from ...experts.tasks import write_examples
    from ...experts.tasks.sources import build_task

    if out.exists():
        raise FinLoraError(f"{out} exists and is never overwritten; choose another file.")
    examples = build_task(task, source)
    write_examples(out, examples)
    print(f"{len(examples):,} examples of {task} written to {out}")


def data_check(
    examples: Annotated[Path, tyro.conf.arg(metavar="FILE")],
    /,
    task: str | None = None,
    base: str = "embedded",
) -> None:
    """Check a file of examples before training or evaluating on it.

    Ends in an error that names file and line if the file is malformed; otherwise counts what deserves a look,
    such as prompts that are too long for the base.

    Args:
        examples: JSONL file with `context` and `target`, optionally `group`.
        task: Name of the task, to check that its limit on the length of answers suffices.
        base: Base whose tokens are counted: embedded, a local folder or a hub id.
    """
    from ...experts.base_model import load_config, load_tokenizer
    from ...experts.data_check import check_examples
    from ...experts.tasks import get_task, read_examples

    known_task = None if task is None else get_task(task)
    found = check_examples(read_examples(examples), load_tokenizer(base), load_config(base), known_task)
    print(f"{found.examples:,} examples in {found.groups:,} groups")
    print(f"tokens with base {base}: median {found.median_tokens:,.0f}, longest {found.longest_tokens:,}")
    print(f"too long for the base: {found.too_long:,}")
    print(f"repeated prompts: {found.repeated_prompts:,}")
    print(f"prompts with different answers: {found.contradictions:,}")
    if known_task is not None:
        print(f"answers longer than the {known_task.max_new_tokens} tokens of {task}: {found.unreachable:,}")
