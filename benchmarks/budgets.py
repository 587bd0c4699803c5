"""How much a benchmark trains and asks, and with which settings: one table, so tuning is changing data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from ..experts.errors import FinLoraError
from ..experts.settings import ExpertSettings
from ..moe.mode import EXACT, Mode
from ..router.settings import RouterTrainingSettings, XLoRASettings
from .methods import LAST_TRUNK, ROUTERS, XLORA


@dataclass(frozen=True, kw_only=True)
class RouterPlan:
    """What the mixture of a method looks like."""

    router: XLoRASettings = field(default_factory=XLoRASettings)
    """Shape of its router."""
    mode: Mode = EXACT
    """How it comes by its scalings."""
    label_steps: int | None = None
    """Steps on labels before its training, if other than the budget's."""


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Sizes and settings of one benchmark."""

    train_examples: int = 2000
    """Most training examples of a task, for its expert, for the multi-task adapter and for the router."""
    test_examples: int = 200
    """Most test questions of a task."""
    router_examples: int = 500
    """Most training examples of a task that the router learns from."""
    routing_examples: int = 32
    """Test questions of a task over which scalings are averaged for the routing map."""
    answer_batch_size: int = 32
    """Most questions answered at once."""
    expert: ExpertSettings = field(default_factory=ExpertSettings)
    """How experts and the multi-task adapter are trained."""
    expert_steps: Mapping[str, int] = field(default_factory=dict)
    """Steps of the experts of tasks that need another number than all others, by task."""
    router: RouterTrainingSettings = field(default_factory=RouterTrainingSettings)
    """How routers are trained."""
    routers: Mapping[str, RouterPlan] = field(default_factory=lambda: {XLORA: RouterPlan()})
    """The mixture of each method that has a router; all others are compared with `xlora`."""

    def expert_settings(self, task: str) -> ExpertSettings:
        """How the expert of one task is trained."""
        return replace(self.expert, max_steps=self.expert_steps.get(task, self.expert.max_steps))

    def __post_init__(self) -> None:
        """Reject sizes that no run could have."""
        for name in (
            "train_examples",
            "test_examples",
            "router_examples",
            "routing_examples",
            "answer_batch_size",
        ):
            if getattr(self, name) < 1:
                raise FinLoraError(f"Budget.{name} must be at least 1, got {getattr(self, name)}.")
        if self.expert_steps and self.expert.max_steps is None:
            raise FinLoraError("Budget.expert_steps needs expert.max_steps, the number for all other tasks.")
        if XLORA not in self.routers or not set(self.routers) <= set(ROUTERS):
            raise FinLoraError(
                f"Budget.routers has {', '.join(self.routers) or 'nothing'}; it needs {XLORA} and may have "
                f"{', '.join(ROUTERS)}."
            )


# Routers look back: from a token's own hidden state alone no router tells the four XBRL tasks apart, because
# their prompts differ in an instruction that stands many tokens before the answer.
_XLORA = XLoRASettings(depth=2, width=128, dropout=0.0, context_width=48)
_ROUTERS = {
    XLORA: RouterPlan(router=_XLORA),
    "xlora_token": RouterPlan(router=replace(_XLORA, context_width=0)),
}
_ROUTER = RouterTrainingSettings(
    max_steps=40,
    learning_rate=1e-3,
    task_temperature=100.0,
    label_steps=200,
    label_weight=0.5,
    save_steps=20,
)

TRUNK_LABEL_STEPS = 800
"""Steps on labels of the routers of trunks."""

_REAL = Budget(
    test_examples=25,
    router_examples=150,
    routing_examples=16,
    answer_batch_size=30,
    expert=ExpertSettings(max_steps=60, learning_rate=2.5e-3, save_steps=20),
    router=replace(_ROUTER, max_steps=20, save_steps=10),
    routers=_ROUTERS,
)

BUDGETS: dict[str, Budget] = {
    "embedded": Budget(
        test_examples=100,
        router_examples=300,
        routing_examples=16,
        answer_batch_size=50,
        expert=ExpertSettings(max_steps=100, learning_rate=2.5e-3, save_steps=50),
        # From validation questions: headlines were at 63, 74 and 93 % after 100, 200 and 500 steps, formulas
        # at 100 % after 150.
        expert_steps={"xbrl_formula": 150, "xbrl_formula_calc": 150, "xbrl_term": 150, "headline": 500},
        router=_ROUTER,
        routers=_ROUTERS,
    ),
    "real": _REAL,
    "finlora-15": _REAL,
    "finlora-fixed": _REAL,
}
"""Budget of each suite on the embedded base, for two CPU cores."""


def with_single_passes(budget: Budget, depth: int) -> Budget:
    """Compare the modes that pass once over the weights with the exact mixture.

    Args:
        budget: Its method `xlora` says what the routers look like.
        depth: Number of blocks of the base; there is one trunk for each place that a router may have.
    """
    router = budget.routers[XLORA].router
    prompt = Mode(name="prompt")
    # From validation questions: early states hold a token and little of what came before, so the router has
    # to find the instruction itself. With the shape and steps of the others, seeds ended 50 to 76.
    early = replace(router, width=2 * router.width, context_width=2 * router.context_width)
    plans = {
        XLORA: budget.routers[XLORA],
        "previous": RouterPlan(router=router, mode=Mode(name="previous")),
        "prompt": RouterPlan(router=router, mode=prompt),
        "prompt_top2": RouterPlan(router=replace(router, top_k=2), mode=prompt),
    }
    for block in range(min(depth, LAST_TRUNK + 1)):
        trunk = Mode(name="trunk", block=block)
        plans[f"trunk_{block}"] = RouterPlan(router=early, mode=trunk, label_steps=TRUNK_LABEL_STEPS)
    return replace(budget, routers=plans)
