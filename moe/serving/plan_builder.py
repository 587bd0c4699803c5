"""Builds the token plan of a batch from what its requests run on and what routers have said so far."""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from .expert_pool import ExpertPool
from .served_mixture import ServedMixture
from .served_weights import ServedWeights
from .token_plan import TokenPlan, Use

Served = ServedWeights | ServedMixture


class PlanBuilder:
    """Keeps the plans of the last batch, since the next one has the same requests as a rule."""

    def __init__(self, pool: ExpertPool):
        """Plan for the experts of `pool`."""
        self._pool = pool
        self._plans: dict[object, tuple[TokenPlan, list[float]]] = {}
        self._batch: object = None

    def build(
        self,
        served: Sequence[Served],
        query_lengths: Sequence[int],
        scalings: Mapping[int, Float[Tensor, "token module expert"]],
    ) -> TokenPlan | None:
        """Return the plan for a batch; None if no token uses an expert.

        Args:
            served: What each request runs on.
            query_lengths: New tokens of each request.
            scalings: Of requests on mixtures, by the request's number, for the layers of its mixture or one
                for all; mixtures that are absent do not act yet.
        """
        batch = (self._pool.version, tuple(served), tuple(query_lengths))
        if batch != self._batch:
            self._plans, self._batch = {}, batch
        stage = tuple(scalings)
        if stage not in self._plans:
            uses, constants = self._uses(served, query_lengths, scalings)
            if not uses:
                return None
            self._plans[stage] = (TokenPlan(self._pool, uses), constants)
        plan, constants = self._plans[stage]
        if scalings or not plan.has_weights:
            plan.set_weights(self._weights(constants, served, scalings))
        return plan

    def _uses(
        self, served: Sequence[Served], query_lengths: Sequence[int], scalings: Mapping[int, Tensor]
    ) -> tuple[list[Use], list[float]]:
        """Source 0 is zero, then come the fixed weights, then each mixture's scalings, token by token."""
        uses: list[Use] = []
        constants = [0.0]
        start = 0
        for one, count in zip(served, query_lengths, strict=True):
            if isinstance(one, ServedWeights) and one.experts:
                uses.append(self._use(one, start, count, len(constants), 0))
                constants.extend(one.weights)
            start += count
        source, start = len(constants), 0
        for number, (one, count) in enumerate(zip(served, query_lengths, strict=True)):
            if number in scalings:
                uses.append(self._use(one, start, count, source, len(one.experts)))
                source += count * len(one.experts)
            start += count
        return uses, constants

    def _use(self, one: Served, start: int, count: int, source: int, step: int) -> Use:
        """Tokens that use all experts of a model, whose weights stand side by side from `source` on."""
        places = [self._pool.resident[key] for key in one.experts]
        rows = tuple(row for place in places for row in place.slices)
        sources = tuple(source + index for index, place in enumerate(places) for _ in place.slices)
        modules = frozenset[int]().union(*(place.modules for place in places))
        return Use(start, count, rows, sources, step, modules)

    def _weights(
        self, constants: list[float], served: Sequence[Served], scalings: Mapping[int, Tensor]
    ) -> Float[Tensor, "module source"]:
        pages = self._pool.pages
        fixed = torch.tensor(constants, dtype=pages.dtype, device=pages.device)[None]
        if not scalings:
            return fixed
        parts = [self._spread(served[number], one.to(pages.dtype)) for number, one in scalings.items()]
        modules = max(len(part) for part in parts)
        return torch.cat([fixed.expand(modules, -1), *(part.expand(modules, -1) for part in parts)], dim=1)

    def _spread(
        self, mixture: Served, scalings: Float[Tensor, "token module expert"]
    ) -> Float[Tensor, "place source"]:
        """Bring scalings to the layers of the slice layout; layers that the mixture lacks get zeros."""
        assert isinstance(mixture, ServedMixture)
        own = scalings.transpose(0, 1).flatten(1)
        if len(own) == 1:
            return own
        layout = self._pool.layout
        places = torch.tensor([layout.index_of[name] for name in mixture.module_names], device=own.device)
        return own.new_zeros(len(layout.places), own.shape[1]).index_copy(0, places, own)
