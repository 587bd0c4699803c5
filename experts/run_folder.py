"""The output folder of a training run: new, to be resumed, or not to be touched.

While a run lasts, its checkpoints lie in the subfolder `training` beside a record of what is being trained.
When the result is in place, the subfolder goes. So a folder with a result and no subfolder is finished and is
never written to, and a folder with the subfolder can be resumed by the same command after any interruption.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from .atomic_write import write_json
from .errors import FinLoraError
from .processes import ALONE, Processes

SCRATCH = "training"
RECORD = "run.json"

CHECKPOINT_FILES = ("trainer_state.json", "optimizer.pt", "scheduler.pt")
"""What the Trainer writes after the weights, needed to continue exactly, beside the states of random
generators."""


@dataclass(frozen=True)
class RunFolder:
    """One training run on disk; made by `open_run`."""

    out: Path
    """Where the result goes."""
    processes: Processes = ALONE
    """Who trains; the first one alone writes here, except for the states of random generators."""

    @property
    def scratch(self) -> Path:
        """Folder of the checkpoints; it exists while the run lasts."""
        return self.out / SCRATCH

    def last_checkpoint(self) -> Path | None:
        """Return the newest checkpoint."""
        return max(self.scratch.glob("checkpoint-*"), key=_step, default=None)

    def delete_incomplete_checkpoints(self) -> None:
        """Delete what the Trainer would trust and fail on: the work of a process killed while it wrote."""
        for checkpoint in self.scratch.glob("checkpoint-*"):
            if not _is_complete(checkpoint, self.processes.count):
                shutil.rmtree(checkpoint)

    def finish(self) -> None:
        """Delete the checkpoints; call it when the result is in place."""
        # The record goes first: without it, what a kill leaves of the checkpoints is rubbish, not a run.
        (self.scratch / RECORD).unlink(missing_ok=True)
        shutil.rmtree(self.scratch)


def open_run(out: Path, record: Mapping[str, Any], *, result: str, processes: Processes = ALONE) -> RunFolder:
    """Create the folder of a run, or open it to resume, without incomplete checkpoints.

    Args:
        out: Where the result goes.
        record: All that determines the result; a run is resumed only if it is the same.
        result: Name of the file that is written last, whose presence makes a finished result.
        processes: Who trains; all of them call this.

    Raises:
        FinLoraError: If the folder holds a finished result, an unfinished run of something else, or other
            files.
    """
    run = RunFolder(out, processes)
    plain_record = json.loads(json.dumps(record))
    _check_is_free(run, plain_record, result)
    # Nobody writes before all have looked, and nobody goes on before all is written.
    processes.meet()
    if processes.is_first:
        try:
            run.scratch.mkdir(parents=True, exist_ok=True)
            write_json(run.scratch / RECORD, plain_record)
        except OSError as error:
            raise FinLoraError(f"Cannot write to {out}: {error.strerror}.") from error
        run.delete_incomplete_checkpoints()
    processes.meet()
    return run


def _check_is_free(run: RunFolder, record: Mapping[str, Any], result: str) -> None:
    out = run.out
    if (run.scratch / RECORD).is_file():
        _check_same(out, json.loads((run.scratch / RECORD).read_text(encoding="utf-8")), record)
        return
    if (out / result).exists():
        raise FinLoraError(
            f"{out} already holds a finished result ({result}); give another folder or delete it."
        )
    if out.exists() and not out.is_dir():
        raise FinLoraError(f"{out} is a file; give the name of a folder.")
    if out.is_dir() and any(path.name != SCRATCH for path in out.iterdir()):
        raise FinLoraError(f"{out} is not empty and holds no unfinished run; give a new folder.")


def is_finished(out: Path, *, result: str) -> bool:
    """Whether a folder holds a finished result, so that there is nothing to resume.

    Args:
        out: Where the result goes.
        result: Name of the file that is written last.
    """
    return (out / result).is_file() and not (out / SCRATCH / RECORD).exists()


def _check_same(out: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    for key in sorted(before.keys() | now.keys()):
        if before.get(key) != now.get(key):
            raise FinLoraError(
                f"{out} holds an unfinished run with {key} = {before.get(key)!r}, now it is "
                f"{now.get(key)!r}; repeat the "
                "first command to resume it, or give another folder."
            )


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("-")[2])


def _is_complete(checkpoint: Path, process_count: int) -> bool:
    try:
        state = json.loads((checkpoint / CHECKPOINT_FILES[0]).read_text(encoding="utf-8"))
        weights = list(checkpoint.glob("*.safetensors"))
        for file in weights:
            with safe_open(file, framework="pt"):
                pass
    except (OSError, ValueError, SafetensorError):
        return False
    generators = [f"rng_state_{index}.pth" for index in range(process_count)]
    names = (*CHECKPOINT_FILES, *(generators if process_count > 1 else ["rng_state.pth"]))
    files_are_there = all((checkpoint / name).is_file() for name in names)
    return files_are_there and bool(weights) and state.get("global_step") == _step(checkpoint)
