"""The X-LoRA router: a small perceptron from a token's final hidden state to its scalings.

Buehler and Buehler 2024, arXiv:2402.07148, as PEFT implements it, plus renormalized top-k, a null expert, and
attention over the tokens so far. How it learns is in `train.py`.
"""

from dataclasses import asdict
from itertools import pairwise
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..experts.errors import FinLoraError
from ..moe.routing import Attend, Router
from .settings import XLoRASettings


class XLoRARouter(Router):
    """Linear layers with ReLU and dropout between them, then scalings over the experts."""

    name: ClassVar[str] = "xlora"

    def __init__(self, settings: XLoRASettings, *, d_model: int, module_count: int, expert_count: int):
        """Build a router with PyTorch's random initial weights.

        Args:
            settings: Shape and normalization.
            d_model: Width of the base's hidden states.
            module_count: Number of adapted linear layers.
            expert_count: Number of experts.

        Raises:
            FinLoraError: If top_k is larger than the number of experts.
        """
        super().__init__()
        slots = expert_count + settings.null_expert
        if settings.top_k is not None and settings.top_k > slots:
            raise FinLoraError(
                f"XLoRASettings.top_k is {settings.top_k}, but there are only {slots} experts"
                + (" with the null expert." if settings.null_expert else ".")
            )
        self.settings = settings
        self.d_model = d_model
        self.module_count = module_count if settings.per_module else 1
        self.expert_count = expert_count
        self.most_chosen = settings.top_k
        self.context_width = settings.context_width
        if settings.context_width:
            self.query = nn.Linear(d_model, settings.context_width)
            self.key = nn.Linear(d_model, settings.context_width)
            self.value = nn.Linear(d_model, settings.context_width)
            # Zero queries attend to all tokens alike: the router starts from the mean of the values so far.
            nn.init.zeros_(self.query.weight)
            nn.init.zeros_(self.query.bias)
        widths = [
            d_model + settings.context_width,
            *[settings.width] * (settings.depth - 1),
            self.module_count * slots,
        ]
        self.linears = nn.ModuleList(
            nn.Linear(d_in, d_out, bias=settings.bias) for d_in, d_out in pairwise(widths)
        )
        self.dropout = nn.Dropout(settings.dropout)

    def forward(
        self, hidden: Float[Tensor, "batch token d_model"], attend: Attend | None = None
    ) -> Float[Tensor, "batch token module expert"]:
        """Return the scalings of every token; the module axis has size 1 unless `per_module` is set."""
        return self.normalize(self.logits(hidden, attend))

    def logits(
        self, hidden: Float[Tensor, "batch token d_model"], attend: Attend | None = None
    ) -> Float[Tensor, "batch token module slot"]:
        """Return the raw outputs: one slot an expert, the null expert (if any) last."""
        *inner, last = self.linears
        features = hidden.to(last.weight.dtype)  # pyright: ignore[reportArgumentType, reportCallIssue]
        if self.context_width:
            features = torch.cat([features, self._context(features, attend, hidden.dtype)], dim=-1)
        for linear in inner:
            features = linear(features)
            if self.settings.relu:
                features = self.dropout(torch.relu(features))
        return last(features).unflatten(-1, (self.module_count, -1))

    def _context(self, features: Tensor, attend: Attend | None, dtype: torch.dtype) -> Tensor:
        if attend is None:
            raise ValueError("a router with a context_width was called without attention")
        # In the dtype of the hidden states, because a cache holds all keys and values in one dtype.
        seen = attend(*(part(features).to(dtype) for part in (self.query, self.key, self.value)))
        return seen.to(features.dtype)

    def normalize(
        self, logits: Float[Tensor, "batch token module slot"]
    ) -> Float[Tensor, "batch token module expert"]:
        """Turn raw outputs into scalings: softmax, top-k, renormalization, each token for itself."""
        settings = self.settings
        scalings = torch.softmax(logits / settings.temperature, dim=-1) if settings.softmax else logits
        kept = torch.ones_like(scalings, dtype=torch.bool)
        if settings.top_k is not None:
            chosen = scalings.topk(settings.top_k, dim=-1).indices
            kept = torch.zeros_like(kept).scatter(-1, chosen, True)
        if settings.renormalize == "softmax":
            scalings = torch.softmax(scalings.masked_fill(~kept, float("-inf")), dim=-1)
        scalings = scalings.masked_fill(~kept, 0.0)
        if settings.renormalize == "sum":
            scalings = scalings / scalings.sum(dim=-1, keepdim=True)
        return scalings[..., : self.expert_count] * settings.scale

    def settings_as_dict(self) -> dict[str, Any]:
        """Return all settings, each field explicit."""
        return asdict(self.settings)

    @classmethod
    def from_settings(
        cls, settings: dict[str, Any], *, d_model: int, module_count: int, expert_count: int
    ) -> "XLoRARouter":
        """Build the router that `settings_as_dict` described, with weights still to be loaded.

        Raises:
            FinLoraError: If a setting is unknown, not allowed, or does not fit the number of experts.
        """
        return cls(
            XLoRASettings.from_dict(settings),
            d_model=d_model,
            module_count=module_count,
            expert_count=expert_count,
        )
