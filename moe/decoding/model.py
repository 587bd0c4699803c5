"""What decoding loops need of a mixture."""

from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ..bank import ExpertBank
from ..mode import Mode
from ..router_attention import RouterAttention
from ..routing import Router
from ..scalings import ScalingsContext


@runtime_checkable
class DecodableMixture(Protocol):
    """The parts of a `MixtureForCausalLM` that a decoding loop uses."""

    mode: Mode
    base: PreTrainedModel
    twin: PreTrainedModel
    bank: ExpertBank
    router: Router
    router_attention: RouterAttention | None
    context: ScalingsContext
    last_scalings: Tensor | None

    @property
    def device(self) -> torch.device:
        """Where it runs."""
        ...

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the passes one after the other."""
        ...
