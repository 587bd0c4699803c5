"""One training on several processes, as `torchrun` or `accelerate launch` starts them.

All of them run the same command, each on a GPU of its own or on a share of the CPU's cores; after every step
torch's DistributedDataParallel averages their gradients. The first one alone writes the result.
"""

from dataclasses import dataclass

import torch
from accelerate import PartialState


@dataclass(frozen=True)
class Processes:
    """The processes of one training, as one of them sees them."""

    count: int = 1
    """How many there are."""
    index: int = 0
    """Number of this one."""

    @property
    def is_first(self) -> bool:
        """Whether this one writes files."""
        return self.index == 0

    def meet(self) -> None:
        """Wait until all processes are here."""
        if self.count > 1:
            PartialState().wait_for_everyone()


ALONE = Processes()
"""A process that trains by itself."""


def join_processes(device: torch.device) -> Processes:
    """Return the processes that train together; the first call in each of them connects them.

    Args:
        device: Where the model is: on the CPU they talk through gloo, on GPUs through NCCL.
    """
    state = PartialState(cpu=device.type == "cpu")
    return Processes(state.num_processes, state.process_index)
