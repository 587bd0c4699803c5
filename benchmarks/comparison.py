"""What a benchmark compares, which is flags too. Importing this file imports no torch."""

from dataclasses import dataclass
from typing import Literal

Compare = Literal["mixtures", "core", "single_passes", "everything"]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Methods, protocols and seeds beside those of every benchmark."""

    compare: Compare = "core"
    """mixtures: base, single experts, their average and X-LoRA. core: a multi-task adapter too, which takes
    as long to train as all experts together. single_passes: the mixture's modes trunk, previous and prompt
    too, each with routers trained for it. everything: all methods (merging, choosing one expert, multi-task
    variants, kinds of routers) in all protocols (experts left out, instructions reworded, batches of mixed
    tasks)."""
    further: tuple[str, ...] = ()
    """Methods to compare beside these, by their names in benchmarks/methods: ties, xlora_null, …"""
    protocols: tuple[str, ...] = ()
    """Protocols to ask in too, by their names in benchmarks/protocols.py: reworded, …"""
    only_in_distribution: tuple[str, ...] = ()
    """Methods that are not trained anew in protocols that leave experts out, so not asked there; beside those
    that differ from another one in one setting."""
    foreign_text: bool = False
    """Also read text that belongs to no task: what methods do to the base's language, and whether a null
    expert takes over. Part of everything."""
    more_expert_seeds: tuple[int, ...] = ()
    """Further seeds of the experts; for each, all that stands on experts is trained anew."""
