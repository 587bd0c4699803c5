"""What a bank's records have already given away, on the bank's own disk.

A step is written here before it is taken, so a process that is killed in between has counted a step too many,
never one too few. The budget is fixed when the ledger is made: each run on the same records uses the same
file, since what they give away adds up.
"""

import dataclasses
import json
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from ..atomic_write import write_json
from ..errors import FinLoraError
from .accounting import PrivacyPlan, Steps, prv_epsilon


class BudgetError(FinLoraError):
    """A step would give away more than the bank allows; it was not taken."""


class Ledger:
    """The file of one bank. Several processes may use it; each change is whole or absent.

    Attributes:
        path: The file.
        epsilon: Budget of all runs together.
        delta: Probability with which epsilon may fail.
    """

    def __init__(self, path: Path, epsilon: float, delta: float) -> None:
        self.path = path
        self.epsilon = epsilon
        self.delta = delta
        # How many steps with some settings are known to be within the budget, and how many beyond it, after
        # the same earlier steps: an accountant takes a third of a second.
        self._bounds: dict[tuple[tuple[Steps, ...], float, float], tuple[int, float]] = {}

    @classmethod
    def open(cls, path: Path, epsilon: float, delta: float) -> "Ledger":
        """Open a bank's ledger, or begin it.

        Args:
            path: The file; its folder is made if need be.
            epsilon: Budget of all runs on these records together.
            delta: Probability with which epsilon may fail.

        Raises:
            FinLoraError: If the file has another budget, or cannot be read.
        """
        if epsilon <= 0 or not 0 < delta < 1:
            raise FinLoraError(
                f"A budget has epsilon above 0 and delta between 0 and 1, got {epsilon} and {delta}."
            )
        ledger = cls(Path(path), epsilon, delta)
        ledger.path.parent.mkdir(parents=True, exist_ok=True)
        with ledger._locked():
            if not ledger.path.exists():
                ledger._write(())
            ledger._read()
        return ledger

    @property
    def history(self) -> tuple[Steps, ...]:
        """All steps charged, oldest first; steps in a row with equal settings are one entry."""
        with self._locked():
            return self._read()

    @property
    def spent(self) -> float:
        """Upper bound of epsilon of all steps charged."""
        return prv_epsilon(self.history, self.delta)

    def admit(self, plan: PrivacyPlan, steps: int) -> None:
        """Check that a whole round can be paid before its first step is.

        Args:
            plan: Noise of the run.
            steps: Steps of the round.

        Raises:
            BudgetError: If it cannot; nothing was charged.
        """
        with self._locked():
            history = self._read()
        earlier, taken = _split(history, plan.noise_multiplier, plan.sample_rate)
        # A run that fits as planned is computed once, not round by round.
        if not self._is_within(
            earlier, dataclasses.replace(_entry(plan), count=max(plan.steps, taken + steps))
        ):
            self._check(earlier, dataclasses.replace(_entry(plan), count=taken + steps))

    def charge(self, noise_multiplier: float, sample_rate: float) -> None:
        """Write down one step, which may be taken only after this returned.

        Raises:
            BudgetError: If the step would exceed the budget; it was not charged.
        """
        with self._locked():
            earlier, taken = _split(self._read(), noise_multiplier, sample_rate)
            step = Steps(noise_multiplier, sample_rate, taken + 1)
            self._check(earlier, step)
            self._write((*earlier, step))

    def _check(self, earlier: tuple[Steps, ...], part: Steps) -> None:
        if not self._is_within(earlier, part):
            raise BudgetError(
                f"The next step would exceed the budget of epsilon {self.epsilon:g} at delta "
                f"{self.delta:g}; this bank takes no more part with these records."
            )

    def _is_within(self, earlier: tuple[Steps, ...], part: Steps) -> bool:
        """Whether earlier steps and this part, as a whole, are within the budget."""
        key = (earlier, part.noise_multiplier, part.sample_rate)
        good, bad = self._bounds.get(key, (0, math.inf))
        if good < part.count < bad:
            # Looks further ahead than asked, so that most steps need no accountant.
            ahead = 2 * part.count if bad == math.inf else int(part.count + bad) // 2
            for count in (ahead, part.count):
                if (
                    prv_epsilon([*earlier, dataclasses.replace(part, count=count)], self.delta)
                    <= self.epsilon
                ):
                    good = max(good, count)
                    break
                bad = min(bad, count)
            self._bounds[key] = (good, bad)
        return part.count <= good

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with FileLock(self.path.with_name(f"{self.path.name}.lock")):
            yield

    def _read(self) -> tuple[Steps, ...]:
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
            budget = (float(content["epsilon"]), float(content["delta"]))
            history = tuple(Steps(**entry) for entry in content["history"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise FinLoraError(
                f"The privacy ledger {self.path} is missing or damaged, so nobody knows what is spent; bring "
                "it back from a copy, or treat the whole budget as spent."
            ) from error
        if budget != (self.epsilon, self.delta):
            raise FinLoraError(
                f"The privacy ledger {self.path} has a budget of epsilon {budget[0]:g} at delta "
                f"{budget[1]:g}, not {self.epsilon:g} at {self.delta:g}; a budget stays as it was when the "
                "ledger was made."
            )
        return history

    def _write(self, history: Sequence[Steps]) -> None:
        entries = [dataclasses.asdict(part) for part in history]
        write_json(self.path, {"epsilon": self.epsilon, "delta": self.delta, "history": entries})
        # Without this a power cut could bring the older file back, and a step would be lost.
        folder = os.open(self.path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _entry(plan: PrivacyPlan) -> Steps:
    return Steps(plan.noise_multiplier, plan.sample_rate, plan.steps)


def _split(
    history: tuple[Steps, ...], noise_multiplier: float, sample_rate: float
) -> tuple[tuple[Steps, ...], int]:
    """Return the entries before, and how many steps with these settings stand at the end."""
    if history and (history[-1].noise_multiplier, history[-1].sample_rate) == (noise_multiplier, sample_rate):
        return history[:-1], history[-1].count
    return history, 0
