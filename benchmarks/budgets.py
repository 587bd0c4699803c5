"""How much a benchmark trains and asks, and with which settings: one table, so tuning is changing data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ..experts.errors import FinLoraError
from ..experts.settings import ExpertSettings
from ..moe.mode import EXACT, Mode
from ..router.settings import PhatgooseSettings, RouterTrainingSettings, XLoRASettings
from .comparison import Comparison
from .methods import FURTHER, LAST_TRUNK, ROUTERS, XLORA
from .methods.multitasks import CATEGORY, MULTITASK
from .methods.routers import ADDED, RANDOM, TRUNK_AUTHORS, TRUNK_WORDINGS, WORDINGS
from .protocols import IN_DISTRIBUTION, PROTOCOLS

VARIANTS = (
    CATEGORY,
    ADDED,
    RANDOM,
    "xlora_token",
    "multitask_rank",
    "multitask_sampled",
    "linear",
    "dare",
    "arrow_matrices",
)
"""Methods that differ from another one in one setting, or are told what cannot be told without an expert."""


@dataclass(frozen=True, kw_only=True)
class RouterPlan:
    """What the mixture of a method looks like."""

    router: XLoRASettings = field(default_factory=XLoRASettings)
    """Shape of its router."""
    mode: Mode = EXACT
    """How it comes by its scalings."""
    label_steps: int | None = None
    """Steps on labels before its training, if other than the budget's."""
    wordings: bool = False
    """Whether it learns from questions with instructions in several wordings."""
    authors: bool = False
    """Whether those of ten authors are among them."""
    prompt_dropout: float = 0.0
    """Share of a prompt's tokens that it does not see in its steps on labels."""


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
    multitask: bool = True
    """Whether the multi-task adapter, the longest of all to train, is compared."""
    further: tuple[str, ...] = ()
    """Methods that are compared beside base, experts, uniform average, multi-task adapter and oracle."""
    gates: PhatgooseSettings = field(default_factory=PhatgooseSettings)
    """How gates inside the layers are trained."""
    merge_examples: int = 20
    """Training examples of each task from which merges learn their weights."""
    protocols: tuple[str, ...] = (IN_DISTRIBUTION,)
    """Ways in which all methods are asked."""
    foreign_text: bool = False
    """Whether methods also read text that belongs to no task."""
    only_in_distribution: tuple[str, ...] = VARIANTS
    """Methods that are not trained anew for protocols that leave experts out."""
    not_task_by_task: tuple[str, ...] = (MULTITASK, WORDINGS, TRUNK_WORDINGS)
    """Methods that, of these protocols, are trained anew only where whole categories are left out."""

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
        for field_name, known in (
            ("further", FURTHER),
            ("protocols", PROTOCOLS),
            ("only_in_distribution", {**FURTHER, **ROUTERS, MULTITASK: None}),
            ("not_task_by_task", {**FURTHER, **ROUTERS, MULTITASK: None}),
        ):
            if unknown := sorted(set(getattr(self, field_name)) - set(known)):
                raise FinLoraError(
                    f"Budget.{field_name} names {', '.join(unknown)}; known are {', '.join(known)}."
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
PROMPT_DROPOUT = 0.4
"""Share of a prompt that routers miss which learn from several wordings."""

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


def router_plans(router: XLoRASettings) -> dict[str, RouterPlan]:
    """The mixture of every method that has a router, given the shape of that of `xlora`."""
    prompt = Mode(name="prompt")
    return {
        XLORA: RouterPlan(router=router),
        "xlora_token": RouterPlan(router=replace(router, context_width=0)),
        WORDINGS: RouterPlan(router=router, wordings=True, prompt_dropout=PROMPT_DROPOUT),
        TRUNK_WORDINGS: replace(trunk_plan(router, 0), wordings=True, prompt_dropout=PROMPT_DROPOUT),
        TRUNK_AUTHORS: replace(
            trunk_plan(router, 0), wordings=True, authors=True, prompt_dropout=PROMPT_DROPOUT
        ),
        "xlora_top2": RouterPlan(router=replace(router, top_k=2, renormalize="sum")),
        "xlora_null": RouterPlan(router=replace(router, null_expert=True)),
        "xlora_shared": RouterPlan(router=replace(router, per_module=False)),
        "previous": RouterPlan(router=router, mode=Mode(name="previous")),
        "prompt": RouterPlan(router=router, mode=prompt),
        "prompt_top2": RouterPlan(router=replace(router, top_k=2), mode=prompt),
        **{f"trunk_{block}": trunk_plan(router, block) for block in range(LAST_TRUNK + 1)},
    }


def with_routers(budget: Budget, names: Sequence[str]) -> Budget:
    """Compare these methods with a router too; those that the budget has stay as they are."""
    plans = router_plans(budget.routers[XLORA].router)
    return replace(budget, routers={**{name: plans[name] for name in names}, **budget.routers})


def with_single_passes(budget: Budget, depth: int) -> Budget:
    """Compare the modes that pass once over the weights with the exact mixture.

    Args:
        budget: Its method `xlora` says what the routers look like.
        depth: Number of blocks of the base; there is one trunk for each place that a router may have.
    """
    trunks = [f"trunk_{block}" for block in range(min(depth, LAST_TRUNK + 1))]
    exact = replace(budget, routers={XLORA: budget.routers[XLORA]})
    return with_routers(exact, ["previous", "prompt", "prompt_top2", *trunks])


def trunk_plan(router: XLoRASettings, block: int) -> RouterPlan:
    """A mixture of mode trunk, with a router twice as large as that of the exact one.

    From validation questions: early states hold a token and little of what came before, so the router has to
    find the instruction itself. With the shape and steps of the others, seeds ended 50 to 76.
    """
    early = replace(router, width=2 * router.width, context_width=2 * router.context_width)
    return RouterPlan(router=early, mode=Mode(name="trunk", block=block), label_steps=TRUNK_LABEL_STEPS)


def with_everything(budget: Budget) -> Budget:
    """Compare all methods, in all protocols.

    Where experts are left out, everything that learns has to learn again; there the methods that differ from
    X-LoRA in one setting stay out, what is told the category of a task has none to be told, and multi-task
    adapters, each as long to train as all experts, are trained for each category only.
    """
    names = (
        WORDINGS,
        TRUNK_WORDINGS,
        "xlora_top2",
        "xlora_null",
        "xlora_shared",
        "previous",
        "prompt",
        "trunk_0",
    )
    plans = with_routers(budget, names).routers
    variants = [name for name in plans if name not in (XLORA, WORDINGS, TRUNK_WORDINGS, "trunk_0")]
    return replace(
        budget,
        routers=plans,
        further=tuple(FURTHER),
        protocols=tuple(PROTOCOLS),
        foreign_text=True,
        only_in_distribution=tuple(dict.fromkeys([*VARIANTS, *variants])),
        not_task_by_task=(MULTITASK, WORDINGS, TRUNK_WORDINGS, "trunk_0"),
    )


def with_further(budget: Budget, comparison: Comparison) -> Budget:
    """Compare and ask also what a comparison names.

    Raises:
        FinLoraError: A method is unknown.
    """
    if unknown := sorted(set(comparison.further) - {*FURTHER, *ROUTERS}):
        raise FinLoraError(
            f"--further names {', '.join(unknown)}; known are {', '.join([*FURTHER, *ROUTERS])}."
        )
    with_router = [name for name in comparison.further if name in ROUTERS]
    others = [name for name in comparison.further if name not in ROUTERS]
    return replace(
        with_routers(budget, with_router),
        further=tuple(dict.fromkeys([*budget.further, *others])),
        protocols=tuple(dict.fromkeys([*budget.protocols, *comparison.protocols])),
        only_in_distribution=tuple(
            dict.fromkeys([*budget.only_in_distribution, *comparison.only_in_distribution])
        ),
        foreign_text=budget.foreign_text or comparison.foreign_text,
    )


def budget_from_dict(values: Mapping[str, Any]) -> Budget:
    """Build a budget from what `dataclasses.asdict` and JSON made of it.

    Raises:
        KeyError, TypeError: Settings are missing or unknown.
    """
    plans = {
        name: RouterPlan(
            router=XLoRASettings(**plan["router"]),
            mode=Mode(**plan["mode"]),
            label_steps=plan["label_steps"],
            wordings=plan["wordings"],
            # Runs from before there were any have no such key.
            authors=plan.get("authors", False),
            prompt_dropout=plan["prompt_dropout"],
        )
        for name, plan in values["routers"].items()
    }
    return Budget(
        **_with_tuples(values)
        | {
            "expert": ExpertSettings(**_with_tuples(values["expert"])),
            "router": RouterTrainingSettings(**values["router"]),
            "gates": PhatgooseSettings(**values["gates"]),
            "routers": plans,
        }
    )


def _with_tuples(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
