"""What a comparison may use and how it asks: expert seed, tasks left out, wording of the questions."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, order=True)
class Scope:
    """Where in a run something belongs.

    Attributes:
        expert_seed: Seed of the experts and of all that stands on them; None for the run's own seed.
        without: Tasks whose experts and examples are left out of everything that is trained.
        asking: How the questions are put, a key of `asking.WAYS`; empty for the suite's own way.
    """

    expert_seed: int | None = None
    without: tuple[str, ...] = ()
    asking: str = ""

    @property
    def training(self) -> Scope:
        """The scope of what is trained, which does not depend on how questions are put."""
        return replace(self, asking="")

    @property
    def experts(self) -> Scope:
        """The scope of the experts themselves: leaving others out changes none of them."""
        return Scope(self.expert_seed)


WHOLE = Scope()
"""All experts of the run's own seed, asked as the suite asks."""
