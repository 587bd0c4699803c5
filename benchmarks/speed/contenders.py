"""Everything that is timed, as one table: a further mode of the mixture is one more line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ...experts.base_model import Base
from ...moe.mode import Mode
from .models import Compiled, Workshop

REFERENCE = "lora"
"""The contender that ratios are to: our own single adapter."""
PEFT_XLORA = "peft_xlora"
TRUNK = Mode(name="trunk", block=0)
"""The only place of the router at which a trunk answered as well as exact (docs/results/modes)."""


@dataclass(frozen=True, kw_only=True)
class Contender:
    """One way to run base and experts.

    Attributes:
        title: What people read.
        colour: In plots.
        make: Makes the model, on the given base or, for PEFT's, which change it, on one of its own.
        has_cache: Whether it decodes with a key/value cache.
        compiled: Whether its steps are compiled, for each length anew, so that only whole generations are
            timed.
        top_k: Whether it skips experts, which it does at batch 1 only: more rows choose nearly all of them.
        grows: Whether numbers of experts and ranks are compared with it.
        same_tokens_as: Contender that greedily generates the same tokens, which is checked.
        about: What it does for each token.
    """

    title: str
    colour: str
    make: Callable[[Workshop, Base], Any]
    has_cache: bool = True
    compiled: bool = False
    top_k: bool = False
    grows: bool = False
    same_tokens_as: str | None = None
    about: str


CONTENDERS: dict[str, Contender] = {
    "base": Contender(
        title="Base alone",
        colour="#9ca3af",
        make=lambda workshop, base: base.model,
        about="The base without any adapter.",
    ),
    "peft_lora": Contender(
        title="PEFT, one LoRA",
        colour="#6b7280",
        make=lambda workshop, base: workshop.peft_lora(base.quantization),
        about="One adapter as PEFT runs it, not merged.",
    ),
    REFERENCE: Contender(
        title="One LoRA",
        colour="#1f2937",
        make=lambda workshop, base: workshop.lora(base),
        about="One adapter in our mixture, always chosen; what ratios are to.",
    ),
    "exact": Contender(
        title="Mixture, exact",
        colour="#0f766e",
        make=lambda workshop, base: workshop.mixture(base),
        grows=True,
        same_tokens_as=PEFT_XLORA,
        about="X-LoRA as published: a scaling pass through the base, then a mixture pass through base and "
        "experts.",
    ),
    "exact_top2": Contender(
        title="Mixture, exact, top 2",
        colour="#5eaaa2",
        make=lambda workshop, base: workshop.mixture(base, top_k=2),
        top_k=True,
        grows=True,
        about="The same with the two experts that have the largest scalings, for each token and layer.",
    ),
    "draft": Contender(
        title="Mixture, draft",
        colour="#0369a1",
        make=lambda workshop, base: workshop.mixture(base, mode=Mode(name="draft")),
        same_tokens_as="exact",
        about="The tokens of exact. The mixture with its last known scalings proposes the next token, so "
        "that the scaling pass of that token runs in one batch with the mixture pass of this one; a wrong "
        "proposal costs one more pass.",
    ),
    "trunk": Contender(
        title="Mixture, trunk",
        colour="#1d4ed8",
        make=lambda workshop, base: workshop.mixture(base, mode=TRUNK),
        about="One pass: the router reads the embeddings, experts act in all blocks.",
    ),
    "trunk_top2": Contender(
        title="Mixture, trunk, top 2",
        colour="#7f9cf0",
        make=lambda workshop, base: workshop.mixture(base, mode=TRUNK, top_k=2),
        top_k=True,
        about="The same with two experts.",
    ),
    "previous": Contender(
        title="Mixture, previous",
        colour="#7c3aed",
        make=lambda workshop, base: workshop.mixture(base, mode=Mode(name="previous")),
        about="A token gets the scalings of the one before it, so both passes run as one batch of two rows.",
    ),
    "previous_top2": Contender(
        title="Mixture, previous, top 2",
        colour="#b79cf2",
        make=lambda workshop, base: workshop.mixture(base, mode=Mode(name="previous"), top_k=2),
        top_k=True,
        about="The same with two experts.",
    ),
    "prompt": Contender(
        title="Mixture, prompt",
        colour="#be185d",
        make=lambda workshop, base: workshop.mixture(base, mode=Mode(name="prompt")),
        grows=True,
        about="All new tokens get the scalings of the prompt's last token: one pass after the prompt.",
    ),
    "prompt_top2": Contender(
        title="Mixture, prompt, top 2",
        colour="#e58cb3",
        make=lambda workshop, base: workshop.mixture(base, mode=Mode(name="prompt"), top_k=2),
        top_k=True,
        grows=True,
        about="The same with two experts.",
    ),
    "lora_compiled": Contender(
        title="One LoRA, compiled",
        colour="#64748b",
        make=lambda workshop, base: Compiled(workshop.lora(base)),
        compiled=True,
        same_tokens_as=REFERENCE,
        about="One adapter in our mixture, with a static cache and steps compiled by torch.compile.",
    ),
    "exact_compiled": Contender(
        title="Mixture, exact, compiled",
        colour="#134e4a",
        make=lambda workshop, base: Compiled(workshop.mixture(base)),
        compiled=True,
        same_tokens_as=PEFT_XLORA,
        about="Exact, with a static cache and steps compiled by torch.compile.",
    ),
    PEFT_XLORA: Contender(
        title="PEFT, X-LoRA",
        colour="#b45309",
        make=lambda workshop, base: workshop.peft_xlora(),
        has_cache=False,
        about="The same model as PEFT runs it: without a cache, so every token runs the whole text twice.",
    ),
}


def cached() -> dict[str, Contender]:
    """Contenders that decode with a cache, step by step as they are."""
    return {
        name: contender
        for name, contender in CONTENDERS.items()
        if contender.has_cache and not contender.compiled
    }
