"""The command that makes one adapter of many."""

from pathlib import Path
from typing import Annotated, Literal

import tyro

from ...experts.errors import FinLoraError
from ...router.merge_settings import CatSettings, LoraHubSettings
from ..merging.settings import MergeSettings
from .answering import Quantization
from .training import read_example_files

Method = Literal["uniform", "linear", "svd", "ties", "dare", "dare_ties", "cat", "lorahub"]


def merge(
    experts: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="EXPERT…")],
    /,
    out: Path,
    method: Method = "uniform",
    settings: Annotated[MergeSettings, tyro.conf.arg(name="")] = MergeSettings(),
    examples: dict[str, Path] = {},  # noqa: B006
    suite: str | None = None,
    base: str | None = None,
    quantization: Quantization | None = None,
    cat: CatSettings = CatSettings(),
    lorahub: LoraHubSettings = LoraHubSettings(),
) -> None:
    """Merge experts into one adapter, which needs no router and costs one pass.

    Writes an ordinary PEFT adapter folder, which `finlora evaluate` and `finlora generate` take as well, plus
    expert.json, which says how it came about. Unlike a router, a merge cannot tell which expert a question
    needs. Experts may differ in rank, alpha and adapted layers.

    Args:
        experts: Folders of two or more LoRA or rsLoRA experts, all trained on the same base.
        out: Folder to write; a finished one is never overwritten.
        method: uniform: weighted mean of the updates, exact; its rank is the sum of the experts' ranks.
            svd: the nearest adapter of a lower rank. linear: A and B averaged apart, an approximation known
            from PEFT. ties: keep the largest entries, settle conflicts of sign. dare: drop entries at random,
            scale up the others; dare_ties: both. cat and lorahub learn the weights from a few examples: cat
            one for each layer, by gradient; lorahub one for each expert, by trial (needs finlora[merge]).
        settings: Weights, density, rank and seed of the methods that learn nothing.
        examples: For cat and lorahub, task and JSONL file, for each task: finer finer.jsonl. Few suffice.
        suite: For cat and lorahub, learn from the examples of a suite for the experts' tasks instead.
        base: For cat and lorahub, the base; by default the one that the experts were trained on.
        quantization: For cat and lorahub, how to store the base; by default as the experts were trained.
        cat: How cat learns.
        lorahub: How lorahub searches.
    """
    from ...benchmarks.models import identify
    from ...experts.adapter import name_experts
    from ...experts.base_model import load_base
    from ...router.learned_merges import merge_by_learning
    from ..merging.merge import merge_experts

    if len(experts) < 2:
        raise FinLoraError(f"A merge takes two or more experts; given: {len(experts)}.")
    folders = name_experts(experts)
    if method not in ("cat", "lorahub"):
        if examples or suite or base or quantization:
            raise FinLoraError(
                f"{method} learns nothing; leave out --examples, --suite, --base and --quantization, or "
                "choose cat or lorahub."
            )
        _print_result(merge_experts(method, folders, out, settings))
        return
    _refuse_settings(method, settings)
    chosen = read_example_files(examples, suite, list(folders))
    first = identify(str(experts[0]))
    loaded = load_base(base or first.base, quantization or first.quantization)
    _print_result(merge_by_learning(folders, loaded, chosen, out, cat if method == "cat" else lorahub))


def _refuse_settings(method: str, settings: MergeSettings) -> None:
    if settings != MergeSettings():
        raise FinLoraError(
            f"{method} learns its weights and is exact; leave out --weights, --density, --rank and --seed; "
            f"the flags that begin with --{method}. say how it learns."
        )


def _print_result(folder: Path) -> None:
    from ...experts.adapter import read_expert

    metadata = read_expert(folder).metadata or {}
    ranks, truncation = metadata["ranks"], metadata["truncation"]
    loss = (
        "exact" if truncation is None else f"{truncation['relative_error']:.1%} lost by cutting to the rank"
    )
    print(f"adapter of rank {ranks['largest']} ({loss}) written to {folder}")
