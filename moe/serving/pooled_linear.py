"""One linear layer of the serving model: the base's own, plus whatever each token's request adds to it."""

import threading

from jaxtyping import Float
from torch import Tensor, nn

from ..few_rows import linear
from .token_plan import TokenPlan


class PlanContext(threading.local):
    """Holds the plan of the running pass; None if no token uses an expert."""

    def __init__(self) -> None:
        self.plan: TokenPlan | None = None


class PooledLinear(nn.Module):
    """A base linear layer of any kind with the updates of experts from the pool."""

    def __init__(self, base_layer: nn.Module, context: PlanContext, index: int):
        """Share the base layer with its owner; `index` is the layer's place in the slice layout."""
        super().__init__()
        self.base_layer = base_layer
        self.context = context
        self.index = index

    def forward(self, x: Float[Tensor, "1 token d_in"]) -> Float[Tensor, "1 token d_out"]:
        """Return base output plus each token's updates."""
        result = linear(self.base_layer, x)
        if (plan := self.context.plan) is not None:
            plan.add_to(result, x, self.index)
        return result
