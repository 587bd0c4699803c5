"""What a router is to the mixture: a map from hidden states to scalings. No learned router is defined here.

`ConstantRouter` gives every token the same scalings: one-hot is plain multi-adapter serving, uniform is
averaging of the experts' outputs. Both let a mixture run without anything learned.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..experts.errors import FinLoraError

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Causal attention over all tokens so far: (query, key, value), each (batch, token, feature), to the same."""


class Router(nn.Module, ABC):
    """Computes scalings from the hidden states of the scaling pass; it never sees the model.

    (Routers that compute them from the inputs of the layers are in `layer_gates.py`.)

    `scalings[b, t, m, e]` is how much of expert e the adapted linear layer m adds for token t. A `module`
    axis of size 1 means that every layer uses the same scalings.
    """

    name: ClassVar[str]
    """Key of this router in `finlora.router.ROUTERS` and in `mixture.json`."""

    needs_hidden_states: ClassVar[bool] = True
    """False if the scalings do not depend on the scaling pass, which is saved then."""

    most_chosen: int | None = None
    """Most experts with a scaling other than zero, for each token and layer; None if all may have one."""

    context_width: int = 0
    """Features of the queries, keys and values with which the router looks back; 0 if it does not."""

    @abstractmethod
    def forward(
        self, hidden: Float[Tensor, "batch token d_model"], attend: Attend | None = None
    ) -> Float[Tensor, "batch token module expert"]:
        """Return the scalings of every token, for every adapted linear layer (or one for all) and expert.

        Args:
            hidden: Hidden states of the new tokens.
            attend: Looks back at all tokens so far; given to routers with a `context_width`.
        """

    def learning_parameters(self) -> Iterable[nn.Parameter]:
        """What a training changes; everything, unless a router says otherwise."""
        return self.parameters()

    @abstractmethod
    def settings_as_dict(self) -> dict[str, Any]:
        """Return what `from_settings` needs beside the sizes, as JSON values."""

    @classmethod
    @abstractmethod
    def from_settings(
        cls, settings: dict[str, Any], *, d_model: int, module_count: int, expert_count: int
    ) -> "Router":
        """Build the router that `settings_as_dict` described, with weights still to be loaded.

        Raises:
            FinLoraError: If the settings are unknown or do not fit the sizes.
        """


class ConstantRouter(Router):
    """The same scalings for every token, fixed beforehand: the mixture runs one pass only.

    Example:
        >>> ConstantRouter.one_hot(1, expert_count=3)(torch.zeros(1, 2, 4)).shape
        torch.Size([1, 1, 1, 3])
    """

    name: ClassVar[str] = "constant"
    needs_hidden_states: ClassVar[bool] = False
    weights: Float[Tensor, "module expert"]

    def __init__(self, weights: Sequence[float] | Sequence[Sequence[float]] | Tensor):
        """Take one weight an expert, or one row of them for each adapted linear layer.

        Raises:
            FinLoraError: If the weights are not one or two-dimensional, or not finite.
        """
        super().__init__()
        table = torch.as_tensor(weights, dtype=torch.float32).detach()
        if table.ndim not in (1, 2) or table.numel() == 0 or not bool(torch.isfinite(table).all()):
            raise FinLoraError(
                f"Constant scalings of shape {tuple(table.shape)} cannot be used; give finite numbers, one "
                "an expert or one row of them for each adapted linear layer."
            )
        self.register_buffer("weights", table.reshape(-1, table.shape[-1]).clone())
        self.most_chosen = max(1, int((self.weights != 0).sum(dim=-1).max()))

    @classmethod
    def one_hot(cls, expert: int, *, expert_count: int) -> "ConstantRouter":
        """Weight 1 for one expert (its number in the bank's order), 0 for the others.

        Raises:
            FinLoraError: If there is no expert of that number.
        """
        if not 0 <= expert < expert_count:
            raise FinLoraError(f"There is no expert number {expert}; the bank has 0 to {expert_count - 1}.")
        return cls([float(i == expert) for i in range(expert_count)])

    @classmethod
    def uniform(cls, *, expert_count: int) -> "ConstantRouter":
        """Weight 1/n for each of n experts: the mean of their updates.

        Raises:
            FinLoraError: If there is no expert.
        """
        if expert_count < 1:
            raise FinLoraError(f"Uniform scalings need at least one expert, got {expert_count}.")
        return cls([1 / expert_count] * expert_count)

    def forward(
        self, hidden: Float[Tensor, "batch token d_model"], attend: Attend | None = None
    ) -> Float[Tensor, "1 1 module expert"]:
        """Return the scalings once, to be broadcast over batch and tokens; the hidden states are not read."""
        return self.weights[None, None]

    def settings_as_dict(self) -> dict[str, Any]:
        """Return the weights, which are settings and not learned."""
        return {"weights": self.weights.tolist()}

    @classmethod
    def from_settings(
        cls, settings: dict[str, Any], *, d_model: int, module_count: int, expert_count: int
    ) -> "ConstantRouter":
        """Build it from `{"weights": [[...], ...]}`.

        Raises:
            FinLoraError: If the weights do not fit the number of experts or of adapted linear layers.
        """
        if set(settings) != {"weights"}:
            raise FinLoraError(f"A constant router has the setting weights only, got {sorted(settings)}.")
        router = cls(torch.tensor(settings["weights"]))
        check_scalings_fit(router.weights, module_count=module_count, expert_count=expert_count)
        return router


def check_scalings_fit(
    weights: Float[Tensor, "*_ module expert"], *, module_count: int, expert_count: int
) -> None:
    """Check that scalings are for as many adapted linear layers (or one for all) and experts as there are.

    Raises:
        FinLoraError: If either number differs.
    """
    modules, experts = weights.shape[-2:]
    if experts != expert_count or modules not in (1, module_count):
        raise FinLoraError(
            f"Scalings for {modules} modules and {experts} experts do not fit a bank of {module_count} "
            f"adapted linear layers and {expert_count} experts; build the router for this bank."
        )
