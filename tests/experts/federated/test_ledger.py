"""The ledger counts each step before it is taken, whatever kills the process, and stops at the budget."""

import itertools
import os
import signal
from collections.abc import Sequence
from pathlib import Path

import pytest

pytest.importorskip("opacus")

from finlora.experts.errors import FinLoraError
from finlora.experts.federated.accounting import PrivacyPlan, Steps, prv_epsilon
from finlora.experts.federated.ledger import BudgetError, Ledger

NOISE, RATE = 1.0, 0.1


def affordable_steps(epsilon: float, delta: float) -> int:
    """The slow, obvious way: ask the accountant after each step."""
    count = 0
    while prv_epsilon([Steps(NOISE, RATE, count + 1)], delta) <= epsilon:
        count += 1
    return count


def test_the_step_past_the_budget_is_refused(tmp_path: Path) -> None:
    """As many steps are paid as the accountant allows, not one more, and the refused one is not charged."""
    ledger = Ledger.open(tmp_path / "ledger.json", epsilon=2.0, delta=1e-5)
    allowed = affordable_steps(2.0, 1e-5)
    for _ in range(allowed):
        ledger.charge(NOISE, RATE)
    for again in (ledger, Ledger.open(tmp_path / "ledger.json", epsilon=2.0, delta=1e-5)):
        with pytest.raises(BudgetError, match="would exceed the budget of epsilon 2"):
            again.charge(NOISE, RATE)
        assert again.history == (Steps(NOISE, RATE, allowed),)
        assert again.spent == prv_epsilon([Steps(NOISE, RATE, allowed)], 1e-5) <= 2.0


def test_a_round_that_cannot_be_paid_is_refused_before_its_first_step(tmp_path: Path) -> None:
    plan = PrivacyPlan.solve(epsilon=2.0, delta=1e-5, n_examples=640, batch_size=64, steps=8)
    ledger = Ledger.open(tmp_path / "ledger.json", epsilon=2.0, delta=1e-5)
    for _ in range(2):
        ledger.admit(plan, 4)
        for _ in range(4):
            ledger.charge(plan.noise_multiplier, plan.sample_rate)
    with pytest.raises(BudgetError):
        ledger.admit(plan, 4)
    assert [part.count for part in ledger.history] == [8]


def test_runs_with_other_noise_add_up(tmp_path: Path) -> None:
    """A second run begins where the first left the budget, not anew."""
    ledger = Ledger.open(tmp_path / "ledger.json", epsilon=4.0, delta=1e-5)
    for noise in (1.0, 1.0, 2.0, 1.0):
        ledger.charge(noise, RATE)
    assert ledger.history == (Steps(1.0, RATE, 2), Steps(2.0, RATE, 1), Steps(1.0, RATE, 1))
    assert ledger.spent > prv_epsilon([Steps(1.0, RATE, 3)], 1e-5)


def charge_in_a_process(ledger: Ledger, taken: Path, *, steps: int, kill: str) -> None:
    """Charge and take steps in a child process, which kills itself around the third write if told so."""
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status) == (kill != "never"), status
        return
    writes = itertools.count(1)
    write = ledger._write

    def write_or_die(history: Sequence[Steps]) -> None:
        third = next(writes) == 3
        if third and kill == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        write(history)
        if third and kill == "after":
            os.kill(os.getpid(), signal.SIGKILL)

    ledger._write = write_or_die
    try:
        for _ in range(steps):
            ledger.charge(NOISE, RATE)
            with taken.open("a") as file:
                file.write("step\n")
    except BaseException:
        os._exit(1)
    os._exit(0)


def test_killed_and_resumed_it_equals_the_accountant(tmp_path: Path) -> None:
    """SIGKILL around the write leaves each step taken counted, and at most one that was not taken."""
    path, taken = tmp_path / "ledger.json", tmp_path / "taken"
    charged = []
    for steps, kill in ((9, "before"), (9, "after"), (3, "never")):
        charge_in_a_process(Ledger.open(path, epsilon=4.0, delta=1e-5), taken, steps=steps, kill=kill)
        (entry,) = Ledger.open(path, epsilon=4.0, delta=1e-5).history
        charged.append((entry.count, len(taken.read_text().split())))
    assert charged == [(2, 2), (5, 4), (8, 7)]
    ledger = Ledger.open(path, epsilon=4.0, delta=1e-5)
    accountant = pytest.importorskip("opacus.accountants").PRVAccountant()
    for _ in range(8):
        accountant.step(noise_multiplier=NOISE, sample_rate=RATE)
    assert ledger.spent == accountant.get_epsilon(1e-5)


def test_a_budget_cannot_be_raised_or_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "bank" / "ledger.json"
    Ledger.open(path, epsilon=2.0, delta=1e-5).charge(NOISE, RATE)
    with pytest.raises(FinLoraError, match="has a budget of epsilon 2 at delta 1e-05, not 8"):
        Ledger.open(path, epsilon=8.0, delta=1e-5)
    path.write_text('{"epsilon": 2.0, "delta"')
    with pytest.raises(FinLoraError, match="damaged"):
        Ledger.open(path, epsilon=2.0, delta=1e-5)


def test_a_ledger_that_vanishes_stops_training(tmp_path: Path) -> None:
    ledger = Ledger.open(tmp_path / "ledger.json", epsilon=2.0, delta=1e-5)
    ledger.charge(NOISE, RATE)
    ledger.path.unlink()
    with pytest.raises(FinLoraError, match="nobody knows what is spent"):
        ledger.charge(NOISE, RATE)
