"""Examples divided among banks as they are in finance: unevenly, by kind of question and by company.

Nothing here is random without a seed: the same examples, banks and seed give the same parts on every machine.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from ..errors import FinLoraError
from ..tasks.task import Example

Parts = dict[str, list[Example]]
"""Name of a bank -> its examples."""


def bank_names(count: int) -> list[str]:
    """Return the names of banks in an experiment, in their sorted order.

    Raises:
        FinLoraError: There are less than one.
    """
    if count < 1:
        raise FinLoraError(f"A federation needs at least 1 bank, got {count}.")
    width = len(str(count - 1))
    return [f"bank-{index:0{width}}" for index in range(count)]


def one_task_each(examples: Mapping[str, Sequence[Example]]) -> Parts:
    """Give each bank all examples of one task, as FinLoRA does with its four kinds of XBRL question.

    Args:
        examples: Task -> its examples.
    """
    return dict(zip(bank_names(len(examples)), map(list, examples.values()), strict=True))


def by_dirichlet(
    examples: Mapping[str, Sequence[Example]],
    n_banks: int,
    alpha: int | float,
    *,
    seed: int,
    smallest: int = 16,
) -> Parts:
    """Divide each task's companies among the banks in shares drawn from a Dirichlet distribution.

    The questions on one company stay in one bank: no filing lies in two of them. The lower alpha, the more a
    bank has of a few tasks and the more sizes differ (Hsu et al. 2019, arXiv:1909.06335); as alpha grows, all
    banks get alike mixtures of equal size.

    Args:
        examples: Task -> its examples; `group` names the company, an example without one stands alone.
        n_banks: Number of banks.
        alpha: Concentration of the shares, above 0.
        seed: Determines shares and order.
        smallest: Fewest examples of a bank; shares are drawn again until all have so many.

    Raises:
        FinLoraError: Alpha is not above 0, or there are too few examples.
    """
    names = bank_names(n_banks)
    if not (alpha > 0 and math.isfinite(alpha)):
        raise FinLoraError(f"alpha must be above 0 and finite, got {alpha}.")
    total = sum(map(len, examples.values()))
    if total < n_banks * smallest:
        raise FinLoraError(f"{total} examples are too few for {n_banks} banks of at least {smallest}.")
    random = np.random.default_rng([seed, n_banks])
    for _ in range(1000):
        parts: Parts = {name: [] for name in names}
        for task in examples:
            shares = random.dirichlet([alpha] * n_banks)
            for name, part in zip(names, _shared_out(examples[task], shares, random), strict=True):
                parts[name] += part
        if min(map(len, parts.values())) >= smallest:
            return parts
    raise FinLoraError(
        f"No draw with alpha {alpha} gave each of {n_banks} banks {smallest} examples; raise alpha, or "
        "ask for smaller banks."
    )


def _shared_out(
    examples: Sequence[Example], shares: np.ndarray, random: np.random.Generator
) -> list[list[Example]]:
    """Split whole companies, in random order, at the shares' running sums."""
    companies: dict[str, list[Example]] = {}
    for index, example in enumerate(examples):
        companies.setdefault(example.group or f"example {index}", []).append(example)
    order = [list(companies.values())[index] for index in random.permutation(len(companies))]
    bounds = np.round(np.cumsum(shares) * len(order)).astype(int)[:-1]
    pieces = np.split(np.arange(len(order)), bounds)
    return [[example for index in piece for example in order[index]] for piece in pieces]
