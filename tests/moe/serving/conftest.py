"""A catalog in memory, experts of several shapes, and each model alone as the slow, obvious reference."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path

import pytest
import torch

from finlora.experts.adapter import read_expert
from finlora.experts.base_model import Base
from finlora.moe.bank import ExpertBank, read_matrices
from finlora.moe.mixture import MixtureForCausalLM
from finlora.moe.mode import EXACT, Mode
from finlora.moe.routing import ConstantRouter, Router
from finlora.moe.serving.engine import Engine, EngineSettings
from finlora.moe.serving.plan_builder import Served
from finlora.moe.serving.requests import (
    BASE_MODEL,
    FinishEvent,
    GenerationRequest,
    ModelChoice,
    QuarantinedModelError,
    TokenEvent,
    UnknownModelError,
)
from finlora.moe.serving.served_mixture import ServedMixture
from finlora.moe.serving.served_weights import ServedWeights
from finlora.moe.serving.slice_layout import Matrices
from finlora.router.settings import XLoRASettings
from finlora.router.xlora import XLoRARouter


class MemoryCatalog:
    """Experts and mixtures that were read before."""

    def __init__(self, experts: Mapping[str, Matrices]):
        self.experts = dict(experts)
        self.mixtures: dict[str, ServedMixture] = {}
        self.reasons: dict[Hashable, str] = {}
        self.held = 0
        self._served: dict[object, Served] = {}

    def resolve(self, choice: ModelChoice) -> Served:
        """As `ModelCatalog.resolve`."""
        weights = {choice: 1.0} if isinstance(choice, str) else dict(choice)
        if choice == BASE_MODEL:
            weights = {}
        elif isinstance(choice, str) and choice in self.mixtures:
            self.held += 1
            return self.mixtures[str(choice)]
        for name in weights:
            if name not in self.experts:
                raise UnknownModelError(f"No model {name}.")
            if name in self.reasons:
                raise QuarantinedModelError(f"{name} is in quarantine.")
        self.held += 1
        key = tuple(weights.items())
        return self._served.setdefault(key, ServedWeights(list(weights), list(weights.values())))

    def release(self, served: Served) -> None:
        """As `ModelCatalog.release`."""
        self.held -= 1

    def ranks(self, key: Hashable) -> Mapping[str, int]:
        """As `ModelCatalog.ranks`."""
        return {name: len(down) for name, (down, _) in self.experts[str(key)].items()}

    def matrices(self, key: Hashable) -> Matrices:
        """As `ModelCatalog.matrices`."""
        return self.experts[str(key)]

    def quarantine(self, key: Hashable, reason: str) -> None:
        """As `ModelCatalog.quarantine`."""
        self.reasons[key] = reason


@pytest.fixture
def folders(make_expert) -> dict[str, Path]:
    """Eight experts of several ranks, scales and adapted layers."""
    shapes: list[dict[str, object]] = [
        {"r": 4},
        {
            "r": 8,
            "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
        },
        {"r": 16, "use_rslora": True},
        {"r": 3, "target_modules": ["q_proj", "v_proj"]},
        {"r": 8, "lora_alpha": 4},
        {"r": 20, "rank_pattern": {"up_proj": 5}},
        {"r": 4, "target_modules": ["down_proj"]},
        {"r": 8},
    ]
    return {f"e{i}": make_expert(f"e{i}", seed=i, **shape) for i, shape in enumerate(shapes)}


@pytest.fixture
def catalog(folders) -> MemoryCatalog:
    """The eight experts."""
    return MemoryCatalog({name: read_matrices(name, read_expert(path)) for name, path in folders.items()})


@pytest.fixture
def make_mixture(folders, catalog, make_base) -> Callable[..., MixtureForCausalLM]:
    """A maker of random mixtures, which are added to the catalog under their name as well."""

    def make(
        name: str,
        experts: Sequence[str],
        *,
        mode: Mode = EXACT,
        seed: int = 0,
        router: Router | None = None,
        **settings,
    ) -> MixtureForCausalLM:
        base = make_base()
        bank = ExpertBank.from_folders({one: folders[one] for one in experts}, base)
        sizes = {"module_count": bank.module_count, "expert_count": len(experts)}
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            router = router or XLoRARouter(
                XLoRASettings(**{"width": 16, "depth": 2} | settings),
                d_model=base.model.config.hidden_size,
                **sizes,
            )
            for parameter in router.parameters():
                parameter.data.normal_(std=0.7)
        mixture = MixtureForCausalLM.build(base, bank, router.eval(), mode)
        catalog.mixtures[name] = ServedMixture(name, list(experts), bank.module_names, router, mode)
        return mixture

    return make


@pytest.fixture
def alone(folders, make_base) -> Callable[[Mapping[str, float]], MixtureForCausalLM]:
    """A maker of models that have the named experts with fixed weights only."""

    def make(weights: Mapping[str, float]) -> MixtureForCausalLM:
        base = make_base()
        bank = ExpertBank.from_folders({name: folders[name] for name in weights}, base)
        return MixtureForCausalLM.build(base, bank, ConstantRouter(list(weights.values())))

    return make


@pytest.fixture
def make_engine(make_base, catalog):
    """A maker of engines on the tiny base, which are closed after the test."""
    engines = []

    def make(*, base: Base | None = None, **settings) -> Engine:
        sizes = {"memory_pages": 256, "max_batch_tokens": 64, "max_requests": 32}
        engines.append(Engine(base or make_base(), catalog, EngineSettings(**sizes | settings)))
        return engines[-1]

    yield make
    for engine in engines:
        engine.close()


def read_all(ticket) -> tuple[list[int], FinishEvent]:
    """Tokens and end of a request."""
    tokens = []
    for event in ticket.events(timeout=60.0):
        if isinstance(event, TokenEvent):
            tokens.append(event.token_id)
        else:
            return tokens, event
    raise AssertionError("the events ended without a FinishEvent")


def greedy(model, prompt: Sequence[int], count: int) -> list[int]:
    """What `generate` answers, going on after end tokens."""
    output = model.generate(
        torch.tensor([prompt]), max_new_tokens=count, do_sample=False, eos_token_id=None, pad_token_id=2
    )
    return output[0, len(prompt) :].tolist()


def request(
    prompt: Sequence[int], model: ModelChoice = BASE_MODEL, count: int = 12, **changes
) -> GenerationRequest:
    """A greedy request that goes on after end tokens."""
    return GenerationRequest(
        prompt_ids=list(prompt), model=model, max_new_tokens=count, ignore_eos=True, **changes
    )


@pytest.fixture
def make_prompts() -> Callable[[int], list[list[int]]]:
    """A maker of random prompts of 3 to 40 tokens."""

    def make(count: int) -> list[list[int]]:
        generator = torch.Generator().manual_seed(0)
        lengths = torch.randint(3, 41, (count,), generator=generator).tolist()
        return [torch.randint(3, 259, (length,), generator=generator).tolist() for length in lengths]

    return make
