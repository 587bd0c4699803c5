"""One adapted linear layer of a mixture: the frozen base layer plus all experts at once.

    y(t) = W x(t) + B_all (s_wide(t) * (A_all x(t)))

It does not care how W is stored, so a 4-bit or 8-bit bitsandbytes layer is as good as a plain one. Layers
with the same input, such as the query, key and value projections of a block, share the product with A_all.
Where the scalings come from is not a layer's business: they are read from the `ScalingsContext` that the
mixture fills before a pass. Some depend on the layer's input (`layer_scalings.py`).
"""

from typing import cast

from jaxtyping import Float
from torch import Tensor, nn

from ..experts.errors import FinLoraError
from .expert_stacks import ExpertStacks, StackedDown, StackedUp
from .few_rows import is_large, linear
from .scalings import GroupScalings, ScalingsContext


class MixtureLinear(nn.Module):
    """A base linear layer of any kind, with the experts' scaled updates added to its output."""

    def __init__(self, base_layer: nn.Module, stacks: ExpertStacks, context: ScalingsContext, index: int):
        """Share the base layer and the matrices with their owners; `index` is the layer's number in them."""
        super().__init__()
        self.base_layer = base_layer
        self.is_large = is_large(base_layer)
        self.up = cast(StackedUp, stacks.ups[index])
        self.down = cast(StackedDown, stacks.downs[self.up.group])
        self.context = context

    def forward(self, x: Float[Tensor, "batch token d_in"]) -> Float[Tensor, "batch token d_out"]:
        """Return base output plus the mixed update, in the dtype of the base output.

        Raises:
            FinLoraError: If the base model flattens batch and tokens before this layer.
        """
        if x.ndim != 3:
            raise FinLoraError(
                f"An expert adapts a linear layer that the base calls with {x.ndim}-dimensional input (batch "
                "and token merged, as in mixture-of-experts blocks); train experts on attention and dense "
                "layers only."
            )
        result = linear(self.base_layer, x) if self.is_large else self.base_layer(x)
        scalings = self.context.scalings
        if scalings is None:
            raise RuntimeError("a mixture layer ran outside of MixtureForCausalLM.forward")
        up = self.up
        of_group, place = scalings.of_group(up.group, x), up.place
        rows = None if of_group.up_rows is None else of_group.up_rows[place]
        taken_out = None if of_group.ups is None else of_group.ups[place]
        narrow = self._narrow(x, of_group, place)
        if of_group.mix is not None:
            narrow = of_group.mix(narrow, place)
        return up.add_to(result, narrow, rows, taken_out)

    def _narrow(
        self, x: Float[Tensor, "batch token d_in"], scalings: GroupScalings, place: int
    ) -> Float[Tensor, "batch token row"]:
        down, context = self.down, self.context
        shared = context.shared
        if shared is None or shared[0] is not down:
            parts = down.narrow_all(x, scalings)
            context.shared = (down, x, parts) if len(parts) > 1 else None
            return parts[place]
        _, input_of_parts, parts = shared
        if input_of_parts is not x:
            return down.narrow_one(x, scalings, place)
        if place == len(parts) - 1:
            # Layers run in the bank's order as a rule, so this was the last use; the input need not live on.
            context.shared = None
        return parts[place]
