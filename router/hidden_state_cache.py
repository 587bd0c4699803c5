"""Hidden states that the router reads, stored for every training example.

They depend on the base alone, so epochs and router seeds can share them. One file holds the states of all
tokens; it is mapped into memory, not read.
"""

import hashlib
import math
import os
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from ..experts.encoding import Encoded, collate
from ..experts.processes import ALONE, Processes
from ..moe.mixture import MixtureForCausalLM


class HiddenStateCache:
    """Hidden states of examples, by index.

    Args:
        states: All tokens of all examples, one after the other.
        lengths: Tokens of each example.
    """

    def __init__(self, states: Float[Tensor, "token d_model"], lengths: Sequence[int]) -> None:
        self.states = states
        self.starts = [0, *accumulate(lengths)]

    def __getitem__(self, index: int) -> Float[Tensor, "token d_model"]:
        """Return the hidden states of one example's tokens, prompt and answer."""
        return self.states[self.starts[index] : self.starts[index + 1]]

    @classmethod
    def open(
        cls,
        mixture: MixtureForCausalLM,
        encoded: Sequence[Encoded],
        folder: Path,
        *,
        batch_size: int,
        processes: Processes = ALONE,
        progress: bool,
    ) -> "HiddenStateCache":
        """Open the cache of these examples in a folder, computing it if it is not there.

        The examples are run in a fixed order and in fixed batches, so that a run killed and resumed sees the
        same numbers to the last bit. Of several processes each computes all of it, since not every shared
        file system lets two machines write into one file; in the end they map the same one.

        Args:
            mixture: Its base is run.
            encoded: Examples, none empty.
            folder: Where the file is, or goes; runs on the same base and examples may share it.
            batch_size: Examples run at once.
            processes: Who opens the cache; all of them call this.
            progress: Whether to show a progress bar.
        """
        lengths = [len(example.input_ids) for example in encoded]
        shape = (sum(lengths), mixture.config.get_text_config().hidden_size)
        dtype = mixture.origin.model.dtype
        file = folder / f"hidden_states_{_key(mixture, encoded)}.bin"
        if not _is_complete(file, shape, dtype):
            temporary = file.with_suffix(f".{processes.index}.{os.getpid()}.tmp")
            try:
                states = torch.from_file(
                    str(temporary), shared=True, size=math.prod(shape), dtype=dtype
                ).view(shape)
                _compute(
                    mixture,
                    encoded,
                    cls(states, lengths),
                    batch_size=batch_size,
                    progress=progress and processes.is_first,
                )
                del states
                os.replace(temporary, file)
            finally:
                temporary.unlink(missing_ok=True)
        processes.meet()
        return cls(
            torch.from_file(str(file), shared=False, size=math.prod(shape), dtype=dtype).view(shape), lengths
        )


def _compute(
    mixture: MixtureForCausalLM,
    encoded: Sequence[Encoded],
    cache: HiddenStateCache,
    *,
    batch_size: int,
    progress: bool,
) -> None:
    order = sorted(range(len(encoded)), key=lambda index: -len(encoded[index].input_ids))
    device = mixture.base.device
    with tqdm(total=len(order), desc="scaling pass", unit="example", disable=not progress) as bar:
        for start in range(0, len(order), batch_size):
            indices = order[start : start + batch_size]
            batch = collate([encoded[index] for index in indices], pad_id=0)
            hidden = mixture.scaling_hidden_states(
                batch["input_ids"].to(device), attention_mask=batch["attention_mask"].to(device)
            )
            for index, row in zip(indices, hidden, strict=True):
                cache[index].copy_(row[: len(encoded[index].input_ids)])
            bar.update(len(indices))


def _is_complete(file: Path, shape: tuple[int, int], dtype: torch.dtype) -> bool:
    return file.is_file() and file.stat().st_size == math.prod(shape) * dtype.itemsize


def _key(mixture: MixtureForCausalLM, encoded: Sequence[Encoded]) -> str:
    base = mixture.origin
    read_at = "" if mixture.mode.block is None else f" block {mixture.mode.block}"
    digest = hashlib.sha256(f"{base.revision} {base.quantization} {base.model.dtype}{read_at}\n".encode())
    for example in encoded:
        digest.update(f"{example.input_ids}\n".encode())
    return digest.hexdigest()[:16]
