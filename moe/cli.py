"""The command line: picks the command, lets tyro read its flags, and turns user errors into one sentence.

What a command does stands in `moe/commands/`. Both may import every package of FinLoRA, and nothing imports
them.
"""

import difflib
import errno
import inspect
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

import tyro

from ..experts.errors import FinLoraError
from .commands import (
    answering,
    auditing,
    benchmarking,
    costs,
    data,
    federating,
    formats,
    merging,
    serving,
    serving_load,
    training,
)

COMMANDS: dict[str, Callable[..., None]] = {
    "demo": benchmarking.demo,
    "tasks": data.tasks,
    "data build": data.data_build,
    "data check": data.data_check,
    "data export": data.data_export,
    "train-expert": training.train_expert,
    "train-router": training.train_router,
    "add-expert": training.add_expert,
    "federate simulate": federating.federate_simulate,
    "federate deploy-example": federating.federate_deploy_example,
    "federate server": federating.federate_server,
    "federate bank": federating.federate_bank,
    "federate certificates": federating.federate_certificates,
    "merge": merging.merge,
    "evaluate": answering.evaluate,
    "score": data.score,
    "benchmark": benchmarking.benchmark,
    "benchmark-check": benchmarking.benchmark_check,
    "benchmark-pair": benchmarking.benchmark_pair,
    "replay": benchmarking.replay,
    "benchmark-speed": benchmarking.benchmark_speed,
    "benchmark-serving": serving_load.benchmark_serving,
    "federate canaries": auditing.federate_canaries,
    "federate audit": auditing.federate_audit,
    "generate": answering.generate,
    "serve": serving.serve,
    "import": formats.import_mixture,
    "export": formats.export_mixture,
    "estimate": costs.estimate,
    "pretrain-base": training.pretrain_base,
}

USER_ERROR = 2
"""Exit status when the user has to change something."""

INTERRUPTED = 130
"""Exit status after Ctrl-C, as shells have it."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: Words after `finlora`; those of the process by default.

    Returns:
        Exit status: 0, 2 for something the user has to change, 130 after Ctrl-C.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if not words or words[0] in {"-h", "--help", "help"}:
            print(overview(), flush=True)
            return 0
        name = find_command(words)
        run(name, words[len(name.split()) :])
    except FinLoraError as error:
        print(f"finlora: {error}", file=sys.stderr)
        return USER_ERROR
    except KeyboardInterrupt:
        print(
            "finlora: interrupted; a command that writes a folder goes on from there when it is run again.",
            file=sys.stderr,
        )
        return INTERRUPTED
    except BrokenPipeError:
        # The reader, such as `head`, has seen enough; without this Python complains again when it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if not is_full_disk(error):
            raise
        print(
            f"finlora: the disk is full ({error}); make room and run the same command again.", file=sys.stderr
        )
        return USER_ERROR
    return 0


def run(name: str, words: Sequence[str]) -> None:
    """Read the flags of one command and call it."""
    command = COMMANDS[name]
    tyro.cli(
        command,
        prog=f"finlora {name}",
        # tyro shows the arguments' part of the docstring beside each flag.
        description=(inspect.getdoc(command) or "").partition("\n\nArgs:")[0],
        args=list(words),
    )


def find_command(words: Sequence[str]) -> str:
    """Return the command that the first word or two name.

    Raises:
        FinLoraError: If there is none; the message suggests the nearest one.
    """
    for count in (2, 1):
        if (name := " ".join(words[:count])) in COMMANDS:
            return name
    group = [name for name in COMMANDS if name.startswith(f"{words[0]} ")]
    if group:
        raise FinLoraError(f"`finlora {words[0]}` needs a second word: {' or '.join(group)}.")
    nearest = difflib.get_close_matches(words[0], COMMANDS, n=1)
    hint = f"did you mean {nearest[0]!r}? " if nearest else ""
    raise FinLoraError(f"There is no command {words[0]!r}; {hint}`finlora --help` lists them.")


def overview() -> str:
    """Return the list of commands with one line on each."""
    width = max(map(len, COMMANDS)) + 2
    lines = [f"  {name:<{width}}{summary(command)}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            "usage: finlora COMMAND …",
            "",
            "LoRA experts for finance: one for each task, and a router that mixes them token by token.",
            "",
            *lines,
            "",
            "`finlora COMMAND --help` explains a command. Start with `finlora demo`.",
        ]
    )


def summary(command: Callable[..., Any]) -> str:
    """Return the first line of a command's docstring."""
    return (inspect.getdoc(command) or "").split("\n", 1)[0]


def is_full_disk(error: BaseException) -> bool:
    """Whether an error, as raised or wrapped by a library, means that the disk or a quota is full."""
    numbers = {errno.ENOSPC, errno.EDQUOT}
    # safetensors and torch raise their own types, with only the text of the system's message.
    texts = ("No space left on device", "Disk quota exceeded")
    return getattr(error, "errno", None) in numbers or any(text in str(error) for text in texts)


if __name__ == "__main__":
    sys.exit(main())
