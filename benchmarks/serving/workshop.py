"""Makes everything that a load test asks: bases, thousands of random experts, mixtures, and the servers."""

import shutil
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path

import torch

from ...experts.base_model import Base, load_base
from ...moe.bank import ExpertBank
from ...moe.checkpoint import save_mixture
from ...moe.mixture import MixtureForCausalLM
from ...moe.mode import Mode
from ...moe.serving.admission import AdmissionSettings
from ...moe.serving.engine import Engine, EngineSettings
from ...moe.serving.registry import ExpertRegistry
from ...moe.serving.registry_catalog import RegistryCatalog
from ...moe.serving.requests import ServingEngine
from ...router.loading import build_router
from ...router.settings import XLoRASettings
from ...router.xlora import XLoRARouter
from .peft_mixed import peft_mixed
from .peft_set_adapter import peft_set_adapter
from .random_experts import make_random_experts
from .settings import ServingPlan

MODES = {"trunk": Mode(name="trunk", block=0), "exact": Mode()}
"""Modes of mixtures that are served in shared batches, the single-pass one first."""
ROUTER_WIDTH = 64


class Workshop:
    """Files of a load test in one folder, and servers made from them.

    Attributes:
        folder: Holds random experts, registries and mixtures; deleted by `clear`.
        plan: Sizes.
    """

    def __init__(self, folder: Path, plan: ServingPlan):
        """Make nothing yet."""
        self.folder, self.plan = folder, plan
        self.folder.mkdir(parents=True, exist_ok=True)
        self._experts: dict[str, Path] = {}

    def base(self, quantization: str) -> Base:
        """A base of its own, since each server changes its base."""
        return load_base(self.plan.base, quantization)

    @cached_property
    def word(self) -> list[int]:
        """Tokens of S-LoRA's prompt."""
        return self.base("none").tokenizer("Hello ", add_special_tokens=False)["input_ids"]

    def experts(self, count: int) -> dict[str, Path]:
        """The first experts, made when they are first needed."""
        if len(self._experts) < count:
            folder = self.folder / "experts"
            shutil.rmtree(folder, ignore_errors=True)
            most = max(self.plan.experts)
            self._experts = make_random_experts(self.base("none"), folder, most, ranks=(self.plan.rank,))
        return dict(list(self._experts.items())[:count])

    def registry(self, count: int, base: Base) -> ExpertRegistry:
        """A registry of the first experts, filled when it is first asked for."""
        registry = ExpertRegistry(self.folder / f"registry-{count}", base)
        missing = set(self.experts(count)) - set(registry.names())
        registry.bulk_add({name: path for name, path in self.experts(count).items() if name in missing})
        return registry

    def engine(
        self,
        count: int,
        quantization: str,
        *,
        admission: AdmissionSettings | None = None,
        mixtures: Mapping[str, Path] | None = None,
        memory_pages: int | None = None,
    ) -> "RunningEngine":
        """Our engine with the first experts registered.

        Args:
            count: How many.
            quantization: How the base is stored.
            admission: Who is let in.
            mixtures: Registered beside them, by name.
            memory_pages: By default those of the plan.
        """
        base = self.base(quantization)
        registry = self.registry(count, base)
        for name in set(mixtures or {}) - set(registry.mixture_names()):
            registry.add_mixture(name, (mixtures or {})[name])
        settings = EngineSettings(
            memory_pages=memory_pages or self.plan.memory_pages,
            admission=admission or AdmissionSettings(),
            # A trace is never refused here, however long its queue grows.
            max_queue=1_000_000,
        )
        return RunningEngine(Engine(base, RegistryCatalog(registry, base, build_router), settings), registry)

    def set_adapter(self, names: Iterable[str], quantization: str) -> ServingEngine:
        """PEFT with the named experts, one at a time."""
        return peft_set_adapter(self.base(quantization), self._folders(names), self.plan.set_adapter_batch)

    def mixed(self, names: Iterable[str], quantization: str) -> ServingEngine:
        """PEFT with the named experts in mixed batches."""
        return peft_mixed(self.base(quantization), self._folders(names), self.plan.mixed_batch)

    def _folders(self, names: Iterable[str]) -> dict[str, Path]:
        experts = self.experts(max(self.plan.experts))
        return {name: experts[name] for name in names}

    def mixtures(self, mode: str) -> dict[str, Path]:
        """Mixtures with random X-LoRA routers over as many experts as a weight set has, by name.

        Mixture i has the experts from number i on, so neighbours share all but one.
        """
        folders = {}
        experts = list(self.experts(max(self.plan.experts)).items())
        for number in range(self.plan.models):
            name = f"{mode}-{number}"
            folders[name] = self.folder / "mixtures" / name
            if not folders[name].exists():
                chosen = dict(experts[number : number + self.plan.set_size])
                _write_mixture(self.base("none"), chosen, MODES[mode], folders[name], seed=number)
        return folders

    def clear(self) -> None:
        """Delete all files."""
        shutil.rmtree(self.folder, ignore_errors=True)


class RunningEngine:
    """An engine with its registry, closed together."""

    def __init__(self, engine: Engine, registry: ExpertRegistry):
        """Own both."""
        self.engine, self.registry = engine, registry
        self.submit, self.state = engine.submit, engine.state

    def close(self) -> None:
        """Stop the engine, then close its registry."""
        self.engine.close()
        self.registry.close()


def _write_mixture(base: Base, experts: Mapping[str, Path], mode: Mode, folder: Path, *, seed: int) -> None:
    bank = ExpertBank.from_folders(experts, base)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        router = XLoRARouter(
            XLoRASettings(depth=2, width=ROUTER_WIDTH),
            d_model=base.model.config.hidden_size,
            module_count=bank.module_count,
            expert_count=len(experts),
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    save_mixture(MixtureForCausalLM.build(base, bank, router.eval(), mode), folder)
