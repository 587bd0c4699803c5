"""The adapters that banks train together: what is frozen, what is trained, what is shared.

The update of an adapted layer is alpha / rank times B A. Averaging A and B apart is not averaging B A: the
mean of B_k A_k differs from mean(B_k) mean(A_k) by their covariance. The kinds that keep all but one factor
fixed within a
round average exactly:

    ffa          A from a public seed, B trained (FFA-LoRA, Sun et al. 2024, arXiv:2403.12313)
    alternating  B in odd rounds, A in even ones (RoLoRA, Chen et al. 2024, arXiv:2409.02346)
    core         an r x r matrix R between fixed A and B (as LoRA-XS, Bałazy et al. 2024, arXiv:2405.17604,
    but
                 with A and B from a public seed, so that no bank must send or check a decomposition of the
                 base)
    fedsa        A shared, B of each bank stays there (FedSA-LoRA, Guo et al. 2024, arXiv:2410.01463)
    product      A and B trained; the server averages the products (FlexLoRA, Bai et al. 2024,
    arXiv:2402.11505) fedit        A and B trained and averaged apart, inexactly (FedIT, Zhang et al. 2023,
    arXiv:2305.05644)
"""

import hashlib
import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn

from ..base_model import Base, linear_layer_names
from ..errors import FinLoraError
from .manifest import Manifest, Update
from .settings import AdapterKind, FederatedSettings

Factor = str
"""One of A, B and core."""

TRAINED: dict[AdapterKind, tuple[Factor, ...]] = {
    "ffa": ("B",),
    "fedit": ("A", "B"),
    "product": ("A", "B"),
    "alternating": ("A", "B"),
    "core": ("core",),
    "fedsa": ("A", "B"),
}
"""What banks train over a whole run."""

PRIVATE: dict[AdapterKind, tuple[Factor, ...]] = {"fedsa": ("B",)}
"""What of it never leaves a bank."""

ADAPTER = "default"
"""PEFT's name of the one adapter."""


class FederatedAdapter:
    """A fresh adapter of one kind on a base, read and written as named float32 arrays.

    All parties build the same one: its initial values depend on the settings' seed and the layers' names
    alone. Names are those of `model.named_parameters()`. Call `remove` to get the base back as it was.
    """

    def __init__(self, base: Base, settings: FederatedSettings) -> None:
        known = linear_layer_names(base.model)
        missing = [target for target in settings.targets if target not in known]
        if missing or not settings.targets:
            raise FinLoraError(
                f"The base {base.name} has no layer {', '.join(missing) or 'to adapt'}; its linear layers "
                f"are {', '.join(known)}: choose targets among them."
            )
        self.settings = settings
        self.base = base
        self.config = LoraConfig(
            task_type="CAUSAL_LM",
            r=settings.rank,
            lora_alpha=settings.alpha,  # pyright: ignore[reportArgumentType]
            target_modules=list(settings.targets),
        )
        self.model: Any = get_peft_model(base.model, self.config)
        self._parameters: dict[str, nn.Parameter] = {}
        self._factors: dict[str, dict[Factor, str]] = {}
        with torch.no_grad():
            for name, module in self.model.named_modules():
                if hasattr(module, "lora_A") and ADAPTER in module.lora_A:
                    self._initialize(name, module)
        self.initial = self.read(self._parameters)
        """Values that every party begins with."""
        self.use_round(1)

    @property
    def layers(self) -> Mapping[str, Mapping[Factor, str]]:
        """Adapted layer -> factor (A, B, core) -> name of its tensor."""
        return self._factors

    def trained(self, round_number: int) -> list[str]:
        """Return the names of what banks train in a round, counted from 1."""
        return self._named(self._trained_factors(round_number))

    def shared(self, round_number: int) -> list[str]:
        """Return the names of what banks send in a round."""
        hidden = PRIVATE.get(self.settings.adapter, ())
        return self._named(factor for factor in self._trained_factors(round_number) if factor not in hidden)

    def all_shared(self) -> list[str]:
        """Return the names of what the server keeps: everything that is shared in some round."""
        return sorted({*self.shared(1), *self.shared(2)})

    def private(self) -> list[str]:
        """Return the names of what never leaves a bank."""
        return self._named(PRIVATE.get(self.settings.adapter, ()))

    def manifest(self, run_id: str, round_number: int) -> Manifest:
        """Return what an update of this round must look like."""
        return Manifest.of(run_id, self.read(self.shared(round_number)))

    def manifest_of_all(self, run_id: str) -> Manifest:
        """Return what the global adapter that the server sends must look like."""
        return Manifest.of(run_id, self.read(self.all_shared()))

    def use_round(self, round_number: int) -> None:
        """Let exactly the tensors that a round trains require gradients."""
        trained = set(self.trained(round_number))
        for name, parameter in self._parameters.items():
            parameter.requires_grad_(name in trained)

    def read(self, names: Iterable[str]) -> dict[str, np.ndarray]:
        """Return copies of tensors as float32 arrays."""
        # A copy of its own: on the CPU, `numpy` would be a view of the parameter.
        return {name: self._parameters[name].detach().cpu().numpy().copy() for name in names}

    def write(self, tensors: Update) -> None:
        """Replace tensors by values that were checked against a manifest."""
        with torch.no_grad():
            for name, values in tensors.items():
                self._parameters[name].copy_(torch.from_numpy(np.ascontiguousarray(values)))

    def lora_factors(self) -> dict[str, tuple[Float[Tensor, "rank d_in"], Float[Tensor, "d_out rank"]]]:
        """Return A and B of each adapted layer as an ordinary LoRA adapter has them, a core within B."""
        factors = {}
        for layer, names in self._factors.items():
            matrices = {factor: self._parameters[name].detach().cpu() for factor, name in names.items()}
            up = matrices["B"] @ matrices["core"] if "core" in matrices else matrices["B"]
            factors[layer] = (matrices["A"].clone(), up.clone())
        return factors

    def remove(self) -> None:
        """Take the adapter off, so that the base is as it was."""
        self.model.unload()
        self.base.model.requires_grad_(False).eval()

    def _initialize(self, name: str, module: Any) -> None:
        layer = name.removeprefix("base_model.model.")
        down, up = module.lora_A[ADAPTER], module.lora_B[ADAPTER]
        factors = {"A": f"{name}.lora_A.{ADAPTER}.weight"}
        # As PEFT: uniform within 1 / sqrt(d_in), and B zero, so that the adapter changes nothing at first.
        down.weight.data = down.weight.data.float()
        down.weight.copy_(
            _uniform(f"{self.settings.seed} A {layer}", down.weight) / math.sqrt(down.in_features)
        )
        up.weight.data = torch.zeros_like(up.weight, dtype=torch.float32)
        if self.settings.adapter == "core":
            core: Any = nn.Linear(up.in_features, up.in_features, bias=False, device=up.weight.device)
            core.weight.zero_()
            # With this deviation B R has entries as large as those of R, like the B of an ordinary adapter.
            spread = math.sqrt(3 / up.in_features)
            up.weight.copy_(_uniform(f"{self.settings.seed} B {layer}", up.weight) * spread)
            module.lora_B[ADAPTER] = nn.Sequential(core, up)
            factors |= {"core": f"{name}.lora_B.{ADAPTER}.0.weight", "B": f"{name}.lora_B.{ADAPTER}.1.weight"}
            self._parameters[factors["core"]] = core.weight
        else:
            factors["B"] = f"{name}.lora_B.{ADAPTER}.weight"
        self._parameters |= {factors["A"]: down.weight, factors["B"]: up.weight}
        self._factors[layer] = factors

    def _trained_factors(self, round_number: int) -> tuple[Factor, ...]:
        if self.settings.adapter == "alternating":
            return ("B",) if round_number % 2 else ("A",)
        return TRAINED[self.settings.adapter]

    def _named(self, factors: Iterable[Factor]) -> list[str]:
        chosen = set(factors)
        return sorted(names[f] for names in self._factors.values() for f in names if f in chosen)


def _uniform(text: str, like: Tensor) -> Tensor:
    """Values from -1 to 1 that depend on a text and the shape alone, the same on every machine and device."""
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
    values = torch.rand(like.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float32)
    return (2 * values - 1).to(like.device)
