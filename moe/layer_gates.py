"""Routing inside the layers: each adapted linear layer decides from its own input which experts it uses.

A mixture with a `LayerRouter` runs one pass, without a scaling pass. Arrow and PHATGOOSE are such routers;
how their gate vectors come about is in `router/arrow.py` and `router/phatgoose.py`, how layers get the
decisions in `layer_scalings.py`. Start reading at `LayerRouter.weigh`.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar, Literal, NoReturn, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from ..experts.errors import FinLoraError
from .routing import Router

Score = Literal["absolute", "standardized", "sigmoid"]
Combine = Literal["outputs", "matrices"]


@dataclass(frozen=True, kw_only=True)
class LayerGateSettings:
    """How the products of a layer's input x with the experts' gate vectors v become weights."""

    score: Score
    """absolute: softmax of |x v|. standardized: softmax of x v, with x first brought to mean 0 and variance 1
    over its features. sigmoid: the sigmoid of x v, each expert for itself."""
    top_k: int | None = None
    """Most experts that share a token of a layer, those with the highest scores; all of them if None."""
    temperature: float = 1.0
    """Divides the scores before the softmax; lower is sharper."""
    combine: Combine = "outputs"
    """outputs: sum over experts of w B A x. matrices: (sum of w B) (sum of w A) x, which also pairs the B of
    one expert with the A of another; alpha / rank counts with B, and all experts of a layer need one rank."""

    def __post_init__(self) -> None:
        """Reject settings that no layer could follow."""
        for name, allowed in (("score", get_args(Score)), ("combine", get_args(Combine))):
            if getattr(self, name) not in allowed:
                raise FinLoraError(
                    f"{name} must be one of {', '.join(allowed)}, got {getattr(self, name)!r}."
                )
        if self.top_k is not None and self.top_k < 1:
            raise FinLoraError(f"top_k must be at least 1, got {self.top_k}.")
        if not self.temperature > 0:
            raise FinLoraError(f"temperature must be above 0, got {self.temperature}.")
        if self.score == "sigmoid" and (self.top_k is not None or self.temperature != 1.0):
            raise FinLoraError(
                "score='sigmoid' weighs each expert for itself; leave out top_k and temperature."
            )

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "LayerGateSettings":
        """Build settings from JSON values.

        Raises:
            FinLoraError: If a name is unknown or missing, or a value is not allowed.
        """
        known = sorted(field.name for field in fields(cls))
        if unknown := sorted(set(values) - set(known)):
            raise FinLoraError(
                f"Settings {', '.join(unknown)} of layer gates are unknown; known are {', '.join(known)}."
            )
        try:
            return cls(**values)
        except TypeError as error:
            raise FinLoraError(
                f"A setting of layer gates is missing or of the wrong kind: {error}."
            ) from error


class LayerRouter(Router):
    """One gate vector for each adapted linear layer and expert, compared with the inputs of that layer.

    Attributes:
        settings: How they are compared.
        vectors: For each adapted linear layer, (expert, d_in); unused where an expert does not adapt it.
    """

    name: ClassVar[str] = "layer_gates"
    needs_hidden_states: ClassVar[bool] = False

    def __init__(self, settings: LayerGateSettings, vectors: Sequence[Float[Tensor, "expert _"]]):
        """Take the vectors of all adapted linear layers, in the bank's order; as such they do not learn."""
        super().__init__()
        self.settings = settings
        self.vectors = nn.ParameterList(
            nn.Parameter(one.detach().float().clone(), requires_grad=False) for one in vectors
        )
        self.expert_count = len(vectors[0])
        self.most_chosen = None if settings.top_k is None else min(settings.top_k, self.expert_count)

    def weigh(
        self,
        x: Float[Tensor, "batch token d_in"],
        modules: range,
        adapts: Bool[Tensor, "module expert"] | None = None,
    ) -> Float[Tensor, "batch token module expert"]:
        """Return how much of each expert some layers use for each token of the input that they share.

        Args:
            x: The input.
            modules: Numbers of the layers.
            adapts: Which experts adapt them, and may get weight; None means all.
        """
        settings = self.settings
        features = x.to(self.vectors[modules.start].dtype)
        if settings.score == "standardized":
            features = functional.layer_norm(features, features.shape[-1:])
        products = [functional.linear(features, self.vectors[module]) for module in modules]
        scores = torch.stack(products, dim=-2)
        if settings.score == "sigmoid":
            weights = torch.sigmoid(scores)
            return weights if adapts is None else weights * adapts
        if settings.score == "absolute":
            scores = scores.abs()
        if adapts is not None:
            scores = scores.masked_fill(~adapts, float("-inf"))
        if self.most_chosen is not None and self.most_chosen < self.expert_count:
            top = scores.topk(self.most_chosen, dim=-1)
            scores = torch.full_like(scores, float("-inf")).scatter(-1, top.indices, top.values)
        return torch.softmax(scores / settings.temperature, dim=-1)

    def forward(self, *_: Any) -> NoReturn:
        """Nobody can ask for scalings before the pass: they depend on inputs that the pass computes.

        Raises:
            RuntimeError: Always.
        """
        raise RuntimeError("a LayerRouter decides inside the layers, by weigh")

    def settings_as_dict(self) -> dict[str, Any]:
        """Return all settings, and the width of each adapted linear layer's input."""
        return asdict(self.settings) | {"d_in": [one.shape[1] for one in self.vectors]}

    @classmethod
    def from_settings(
        cls, settings: dict[str, Any], *, d_model: int, module_count: int, expert_count: int
    ) -> "LayerRouter":
        """Build the router that `settings_as_dict` described, with vectors still to be loaded.

        Raises:
            FinLoraError: If a setting is unknown or not allowed, or the widths are not one for each layer.
        """
        widths = settings.get("d_in")
        if (
            not isinstance(widths, list)
            or len(widths) != module_count
            or not all(isinstance(width, int) for width in widths)
        ):
            raise FinLoraError(
                f"Layer gates need d_in, the width of the input of each of {module_count} adapted linear "
                f"layers, got {widths!r}."
            )
        rest = {key: value for key, value in settings.items() if key != "d_in"}
        return cls(LayerGateSettings.from_dict(rest), [torch.zeros(expert_count, width) for width in widths])
