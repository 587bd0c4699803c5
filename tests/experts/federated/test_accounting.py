"""The noise of a run stays within its budget by two independent accountants."""

import math
from types import SimpleNamespace

import pytest
from scipy.special import log_ndtr

pytest.importorskip("opacus")
pytest.importorskip("dp_accounting")

from finlora.experts.errors import FinLoraError
from finlora.experts.federated import accounting
from finlora.experts.federated.accounting import (
    TOLERANCE,
    AccountingError,
    PrivacyPlan,
    Steps,
    check_agreement,
    pld_epsilon,
    prv_epsilon,
)


@pytest.mark.parametrize(
    ("epsilon", "n_examples", "batch_size", "steps"),
    [(1.0, 1600, 64, 40), (8.0, 300, 64, 10)],
)
def test_noise_is_the_least_that_stays_within_the_budget(
    epsilon: float, n_examples: int, batch_size: int, steps: int
) -> None:
    """PRV and PLD agree within 0.02, PRV is the larger one, and a little less noise exceeds the budget."""
    plan = PrivacyPlan.solve(
        epsilon=epsilon, delta=1e-5, n_examples=n_examples, batch_size=batch_size, steps=steps
    )
    assert plan.prv <= epsilon
    assert 0 <= plan.prv - plan.pld <= TOLERANCE
    assert plan.sample_rate == batch_size / n_examples
    less = Steps(plan.noise_multiplier * 0.998, plan.sample_rate, steps)
    assert prv_epsilon([less], 1e-5) > epsilon


def test_one_step_on_everybody_is_the_plain_gaussian_mechanism() -> None:
    """Epsilon of one unsampled step fulfils the formula of Balle and Wang (2018, arXiv:1805.06530)."""
    noise, delta = 2.0, 1e-5
    epsilon = pld_epsilon([Steps(noise, 1.0, 1)], delta)
    first = math.exp(log_ndtr(0.5 / noise - epsilon * noise))
    second = math.exp(epsilon + log_ndtr(-0.5 / noise - epsilon * noise))
    assert first - second == pytest.approx(delta, rel=1e-3)


def test_what_runs_spend_adds_up() -> None:
    """Two different runs together spend more than the larger one and less than the sum."""
    first, second = Steps(1.0, 0.05, 40), Steps(1.5, 0.1, 20)
    both = prv_epsilon([first, second], 1e-5)
    alone = [prv_epsilon([part], 1e-5) for part in (first, second)]
    assert max(alone) < both < sum(alone)
    check_agreement(both, pld_epsilon([first, second], 1e-5))
    assert prv_epsilon([], 1e-5) == prv_epsilon([Steps(1.0, 0.05, 0)], 1e-5) == 0


def test_what_overflows_is_no_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the accountant's numbers overflow, epsilon is infinite, not a NaN below any budget."""
    overflowing = SimpleNamespace(history=[], get_epsilon=lambda _delta, eps_error: math.nan)
    opacus = SimpleNamespace(create_accountant=lambda mechanism: overflowing)
    monkeypatch.setattr(accounting, "_opacus_accountants", lambda: opacus)
    assert prv_epsilon([Steps(0.05, 0.04, 40)], 1e-5) == math.inf


@pytest.mark.parametrize(("prv", "pld"), [(2.03, 2.0), (1.99, 2.0)])
def test_accountants_that_differ_stop_the_run(prv: float, pld: float) -> None:
    with pytest.raises(AccountingError, match="do not agree"):
        check_agreement(prv, pld)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epsilon": math.inf}, "leave it out"),
        ({"epsilon": 0.0}, "above 0"),
        ({"delta": 0.02}, "below 1 / records"),
        ({"batch_size": 101}, "bank's number of records, 100"),
        ({"steps": 0}, "at least one step"),
    ],
)
def test_impossible_plans_are_refused(changes: dict[str, float], message: str) -> None:
    settings = {"epsilon": 8.0, "delta": 1e-5, "n_examples": 100, "batch_size": 10, "steps": 5} | changes
    with pytest.raises(FinLoraError, match=message):
        PrivacyPlan.solve(**settings)
