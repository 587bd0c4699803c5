"""One more expert for a mixture that is trained, without training the rest again.

The router's outputs for the old experts stay exactly as they are; only the new expert's own row of the last
linear layer learns, for each adapted layer, how strongly to compete with them.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..experts.errors import FinLoraError
from ..experts.tasks.task import Example
from ..moe.bank import ExpertBank
from ..moe.mixture import MixtureForCausalLM
from .settings import RouterTrainingSettings
from .train import train_router
from .xlora import XLoRARouter


class GrownLinear(nn.Module):
    """A trained linear layer with one new output for each adapted layer; only the new ones learn.

    Its state dict is that of the one linear layer that it stands for.
    """

    old_weight: Float[Tensor, "module old_slot d_in"]
    old_bias: Float[Tensor, "module old_slot"]

    def __init__(self, trained: nn.Linear, *, module_count: int, place: int):
        """Grow a layer.

        Args:
            trained: Outputs (module, slot), flat; kept as they are.
            module_count: Number of adapted layers, or 1 if all share their scalings.
            place: Which slot the new one gets; later slots move up by one.
        """
        super().__init__()
        weight = trained.weight.detach()
        bias = torch.zeros(len(weight)) if trained.bias is None else trained.bias.detach()
        self.place = place
        self.has_bias = trained.bias is not None
        self.register_buffer("old_weight", weight.unflatten(0, (module_count, -1)).clone())
        self.register_buffer("old_bias", bias.to(weight).unflatten(0, (module_count, -1)).clone())
        self.new_weight = nn.Parameter(torch.zeros_like(self.old_weight[:, 0]))
        self.new_bias = nn.Parameter(torch.zeros_like(self.old_bias[:, 0]))

    @property
    def weight(self) -> Float[Tensor, "output d_in"]:
        """The grown layer's weight."""
        return self._grown(self.old_weight, self.new_weight)

    @property
    def bias(self) -> Float[Tensor, " output"]:
        """The grown layer's bias."""
        return self._grown(self.old_bias, self.new_bias)

    def forward(self, features: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch output"]:
        """Return what the grown layer returns."""
        return nn.functional.linear(features, self.weight, self.bias)

    def _grown(self, old: Tensor, new: Tensor) -> Tensor:
        return torch.cat([old[:, : self.place], new[:, None], old[:, self.place :]], dim=1).flatten(0, 1)

    def _save_to_state_dict(self, destination: dict[str, Tensor], prefix: str, keep_vars: bool) -> None:
        names = ("weight", "bias") if self.has_bias else ("weight",)
        for name in names:
            value = getattr(self, name)
            destination[prefix + name] = value if keep_vars else value.detach()

    def _load_from_state_dict(self, state_dict: Mapping[str, Tensor], prefix: str, *_: Any) -> None:
        modules = len(self.old_weight)
        with torch.no_grad():
            self.new_weight.copy_(state_dict[f"{prefix}weight"].unflatten(0, (modules, -1))[:, self.place])
            if self.has_bias:
                self.new_bias.copy_(state_dict[f"{prefix}bias"].unflatten(0, (modules, -1))[:, self.place])


class GrownRouter(XLoRARouter):
    """An X-LoRA router of which only the outputs for the new expert learn."""

    def learning_parameters(self) -> Iterable[nn.Parameter]:
        """The new expert's rows of the last layer."""
        last = self.linears[-1]
        assert isinstance(last, GrownLinear)
        return [last.new_weight, last.new_bias] if last.has_bias else [last.new_weight]


def grow(mixture: MixtureForCausalLM, name: str, folder: Path) -> MixtureForCausalLM:
    """Return a mixture with one more expert, whose router is ready to learn it and nothing else.

    Args:
        mixture: A trained mixture with an X-LoRA router; left as it was.
        name: Name of the new expert.
        folder: Its PEFT adapter folder.

    Raises:
        FinLoraError: The mixture has another kind of router or has an expert of that name, or the new expert
            cannot be read, does not fit the base, or adapts layers that no other expert adapts.
    """
    router = mixture.router
    if not isinstance(router, XLoRARouter):
        raise FinLoraError(
            f"An expert can be added to a mixture with an xlora router, not with a {router.name} one; build "
            "a mixture of all experts."
        )
    if name in mixture.bank.expert_names:
        raise FinLoraError(
            f"The mixture has an expert {name} already; its experts are "
            f"{', '.join(mixture.bank.expert_names)}."
        )
    folders = {one.name: one.folder for one in mixture.bank.sources}
    bank = ExpertBank.from_folders(folders | {name: folder}, mixture.origin)
    if bank.module_names != mixture.bank.module_names:
        further = sorted(set(bank.module_names) - set(mixture.bank.module_names))
        raise FinLoraError(
            f"The expert {name} adapts {further[0]}, which no expert of the mixture adapts, so its router "
            "has no output for it; train a router for all experts."
        )
    return MixtureForCausalLM.build(mixture.origin, bank, _grown_router(router), mixture.mode)


def _grown_router(router: XLoRARouter) -> XLoRARouter:
    grown = GrownRouter(
        router.settings,
        d_model=router.d_model,
        module_count=router.module_count,
        expert_count=router.expert_count + 1,
    )
    weights = router.state_dict()
    last = f"linears.{len(router.linears) - 1}."
    grown.load_state_dict(
        {key: one for key, one in weights.items() if not key.startswith(last)}, strict=False
    )
    trained = router.linears[-1]
    assert isinstance(trained, nn.Linear)
    grown.linears[-1] = GrownLinear(trained, module_count=router.module_count, place=router.expert_count)
    return grown


def add_expert(
    mixture: MixtureForCausalLM,
    name: str,
    folder: Path,
    examples_by_task: Mapping[str, Sequence[Example]],
    out: Path,
    settings: RouterTrainingSettings | None = None,
    *,
    cache_folder: Path | None = None,
    progress: bool = True,
) -> Path:
    """Teach a mixture when to use one more expert; repeat the call to resume it after an interruption.

    Args:
        mixture: A trained mixture with an X-LoRA router.
        name: Name of the new expert.
        folder: Its PEFT adapter folder.
        examples_by_task: Training examples of the new expert's task, and of some or all others, from which
            the router learns when not to use it.
        out: Folder to create, or that of the same run to resume.
        settings: How to train; by default `RouterTrainingSettings()`.
        cache_folder: As for `train_router`.
        progress: Whether to show progress bars.

    Returns:
        The folder of the mixture of all experts, as `train_router` writes it.

    Raises:
        FinLoraError: As `grow` and `train_router`.
    """
    grown = grow(mixture, name, folder)
    return train_router(grown, examples_by_task, out, settings, cache_folder=cache_folder, progress=progress)
