"""How much noise a bank's whole run needs, and what epsilon it really has: two independent accountants.

The mechanism is DP-SGD (Abadi et al. 2016, arXiv:1607.00133): each step takes every record of the bank with
probability `sample_rate` (Poisson sampling), clips the gradient of each record to length C, and adds Gaussian
noise of standard deviation `noise_multiplier` x C to their sum. Neighbouring data sets differ in one record
that is added or removed. Opacus' PRV accountant (Gopi et al. 2021, arXiv:2106.02848) counts; the privacy loss
distributions of Google's dp-accounting (Doroshenko et al. 2022, arXiv:2207.04380) must agree.
"""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import numpy as np
from scipy.optimize import brentq

from ..errors import FinLoraError

TOLERANCE = 0.02
"""Most by which the epsilons of the two accountants may differ."""
LEAST_NOISE = 0.2
"""Less noise is never solved for: it protects nobody, and the accountants overflow."""
MOST_NOISE = 1e5
"""More noise is not tried."""
MOST_EPSILON = 50.0
"""A larger budget is refused: it would promise a protection that is none."""
PRV_ERROR = 0.01
"""Error bound of the PRV accountant, which is added to what it reports: it is an upper bound."""


@dataclass(frozen=True)
class Steps:
    """Some steps of DP-SGD with equal settings."""

    noise_multiplier: float
    """Standard deviation of the noise over the clipping norm."""
    sample_rate: float
    """Probability of a record to be in a step's batch."""
    count: int
    """Number of steps."""


class AccountingError(FinLoraError):
    """No epsilon can be computed, or the two accountants do not agree."""


def prv_epsilon(history: Sequence[Steps], delta: float) -> float:
    """Return an upper bound of epsilon of all these steps together, by Opacus' PRV accountant.

    It is infinite where the accountant's numbers overflow, as they do for hardly any noise.

    Raises:
        AccountingError: The accountant cannot compute it, such as for hardly any noise.
    """
    taken = tuple(part for part in history if part.count)
    return _prv_epsilon(taken, delta) if taken else 0.0


@lru_cache(maxsize=4096)
def _prv_epsilon(history: tuple[Steps, ...], delta: float) -> float:
    """As `prv_epsilon`; takes a third of a second, and ledgers ask for the same in each round."""
    accountant = _opacus_accountants().create_accountant(mechanism="prv")
    accountant.history = [(part.noise_multiplier, part.sample_rate, part.count) for part in history]
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            # It bounds the domain with orders of Rényi divergence, where a loose bound only costs time.
            warnings.filterwarnings("ignore", "Optimal order is")
            spent = float(accountant.get_epsilon(delta, eps_error=PRV_ERROR))
    except (RuntimeError, ValueError, MemoryError) as error:
        raise AccountingError(
            f"The PRV accountant finds no epsilon for delta {delta} and {list(history)}; take more noise."
        ) from error
    return spent if math.isfinite(spent) else math.inf


def pld_epsilon(history: Sequence[Steps], delta: float) -> float:
    """Return epsilon of all these steps together, by Google's privacy loss distributions."""
    library, distributions = _dp_accounting()
    accountant = distributions.PLDAccountant()
    taken = [part for part in history if part.count]
    for part in taken:
        gaussian = library.GaussianDpEvent(part.noise_multiplier)
        accountant.compose(library.PoissonSampledDpEvent(part.sample_rate, gaussian), part.count)
    return float(accountant.get_epsilon(delta)) if taken else 0.0


def check_agreement(prv: float, pld: float) -> None:
    """Check the epsilons of the two accountants against each other.

    Raises:
        AccountingError: They differ by more than 0.02, or the PRV accountant's, which is an upper bound, is
            the smaller one.
    """
    if not 0 <= prv - pld <= TOLERANCE:
        raise AccountingError(
            f"The accountants do not agree: PRV says epsilon {prv:.4f}, PLD says {pld:.4f}; PRV must be the "
            f"larger one, by at most {TOLERANCE}: choose a smaller epsilon, or more records in a batch."
        )


@dataclass(frozen=True)
class PrivacyPlan:
    """The noise of one bank's whole run, solved once before its first step."""

    epsilon: float
    """What the run may spend."""
    delta: float
    """Probability with which epsilon may fail; below 1 / records."""
    sample_rate: float
    """Probability of a record to be in a step's batch."""
    steps: int
    """Steps of the whole run: rounds x local steps."""
    noise_multiplier: float
    """Standard deviation of the noise over the clipping norm."""
    prv: float
    """What the run spends by the PRV accountant, at most `epsilon`."""
    pld: float
    """What it spends by privacy loss distributions."""

    @classmethod
    def solve(
        cls, *, epsilon: float, delta: float, n_examples: int, batch_size: int, steps: int
    ) -> "PrivacyPlan":
        """Find the least noise with which a run stays within its budget, and check it by both accountants.

        Args:
            epsilon: Budget of the run.
            delta: Probability with which epsilon may fail.
            n_examples: Records of the bank.
            batch_size: Records of a step, on average.
            steps: Steps of the whole run, rounds x local steps.

        Raises:
            FinLoraError: No run has such settings, or the accountants do not agree.
        """
        _check_settings(epsilon, delta, n_examples, batch_size, steps)
        return _solve(epsilon, delta, batch_size / n_examples, steps)


@cache
def _solve(epsilon: float, delta: float, sample_rate: float, steps: int) -> PrivacyPlan:
    """As `PrivacyPlan.solve`; takes seconds, and every round of a run asks for the same."""

    def excess(log_noise: float) -> float:
        """How far, in logarithms, epsilon lies above the budget."""
        spent = prv_epsilon([Steps(math.exp(log_noise), sample_rate, steps)], delta)
        return math.log(min(max(spent, 1e-9), 1e9) / epsilon)

    low, high = math.log(LEAST_NOISE), math.log(LEAST_NOISE * 4)
    while excess(high) > 0:
        low, high = high, high + math.log(4)
        if high > math.log(MOST_NOISE):
            raise AccountingError(f"No noise keeps {steps} steps within epsilon {epsilon}.")
    found: float = high if excess(low) <= 0 else brentq(excess, low, high, xtol=2e-4)  # pyright: ignore
    # The root may lie on either side of the budget, by the tolerance of the search.
    while (spent := prv_epsilon([Steps(math.exp(found), sample_rate, steps)], delta)) > epsilon:
        found += 2e-4
    noise = math.exp(found)
    pld = pld_epsilon([Steps(noise, sample_rate, steps)], delta)
    check_agreement(spent, pld)
    return PrivacyPlan(epsilon, delta, sample_rate, steps, noise, spent, pld)


def _check_settings(epsilon: float, delta: float, n_examples: int, batch_size: int, steps: int) -> None:
    if not 0 < epsilon <= MOST_EPSILON:
        raise FinLoraError(
            f"epsilon is above 0 and at most {MOST_EPSILON:g}, got {epsilon}; leave it out to train without "
            "noise, and without any protection."
        )
    if not 0 < delta < 1 / max(1, n_examples):
        raise FinLoraError(
            f"delta is a probability below 1 / records ({n_examples} here), got {delta}: otherwise revealing "
            "one record at random would count as private."
        )
    if not 1 <= batch_size <= n_examples:
        raise FinLoraError(
            f"batch_size is from 1 to the bank's number of records, {n_examples}, got {batch_size}."
        )
    if steps < 1:
        raise FinLoraError(f"A run has at least one step, got {steps}.")


def _opacus_accountants() -> Any:
    try:
        import opacus.accountants
    except ImportError as error:
        raise _missing("opacus") from error
    return opacus.accountants


def _dp_accounting() -> tuple[Any, Any]:
    try:
        import dp_accounting
        import dp_accounting.pld
    except ImportError as error:
        raise _missing("dp-accounting") from error
    return dp_accounting, dp_accounting.pld


def _missing(library: str) -> FinLoraError:
    return FinLoraError(
        f"{library} is not installed; run `pip install finlora[federated]` to train privately."
    )
