"""What the server must not lose when it is killed: one file, replaced in one step after each round."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from ..atomic_write import write_bytes
from ..errors import FinLoraError

STATE_FILE = "state.safetensors"
_RECORD = "record"


@dataclass(frozen=True)
class ServerState:
    """Where a run stands between two rounds."""

    run: str
    """Name of the run, drawn when it began; banks know their answers by it."""
    round_number: int
    """Rounds that are over, accepted or not."""
    tensors: Mapping[str, np.ndarray]
    """The global adapter."""
    history: list[dict[str, Any]] = field(default_factory=list)
    """One record a round: banks, whether the candidate was accepted, seconds, bytes."""
    moments: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Of the server's optimizer, if it has one; see `server_optimizer.py`."""


def save_state(folder: Path, state: ServerState) -> None:
    """Replace the state in a folder; a kill leaves the old one or this one."""
    record = {"run": state.run, "round": state.round_number, "history": state.history}
    tensors = {f"adapter:{name}": values for name, values in state.tensors.items()}
    tensors |= {f"moments:{name}": values for name, values in state.moments.items()}
    tensors[_RECORD] = np.frombuffer(json.dumps(record).encode(), np.uint8)
    write_bytes(folder / STATE_FILE, save(tensors))


def load_state(folder: Path) -> ServerState | None:
    """Return the state in a folder, or None before the first round.

    Raises:
        FinLoraError: The file is damaged, which no kill does.
    """
    file = folder / STATE_FILE
    if not file.is_file():
        return None
    try:
        tensors = load_file(file)
        record = json.loads(bytes(tensors.pop(_RECORD)).decode())
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise FinLoraError(f"{file} is damaged; delete the run's folder and start again.") from error
    parts: dict[str, dict[str, np.ndarray]] = {"adapter": {}, "moments": {}}
    for name, values in tensors.items():
        part, _, tensor = name.partition(":")
        parts[part][tensor] = values
    return ServerState(record["run"], record["round"], parts["adapter"], record["history"], parts["moments"])
