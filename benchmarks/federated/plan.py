"""Which trainings the comparison consists of, most telling ones first, and with which settings."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Literal, cast, get_args

from ...experts.federated.settings import AdapterKind, FederatedSettings

Arm = Literal["central", "local", "ffa", "fedit", "product", "alternating", "core", "fedsa"]
"""central: one party has all records. local: each bank trains alone, and its expert is asked everything.
The others are the adapters that banks train together."""

FEDERATED_ARMS = tuple(arm for arm in get_args(Arm) if arm not in ("central", "local"))

XBRL_TASKS = ("xbrl_tags", "xbrl_value", "xbrl_formula", "xbrl_formula_calc")

LOCAL_ADAM: frozenset[AdapterKind] = frozenset({"product", "fedsa"})
"""Kinds for which Adam on the server has no meaning, or does not reach what stays in the banks."""

SERVER_RATES: dict[AdapterKind, float] = {"ffa": 5e-3, "fedit": 3.5e-3, "alternating": 5e-3, "core": 3e-2}
"""Step sizes of Adam on the server, chosen on validation questions."""

PRIVATE_SERVER_RATES: dict[AdapterKind, float] = {**SERVER_RATES, "ffa": 1e-2, "core": 4e-2}
"""The same with privacy, where steps are fewer."""


@dataclass(frozen=True)
class Cell:
    """One training."""

    arm: Arm
    """Who trains what."""
    alpha: float
    """Of the Dirichlet distribution by which records are divided: low is uneven."""
    epsilon: float
    """Privacy of each record; infinite without."""
    seed: int
    """Of the division, the initial values and the batches."""
    more_records: float = 1.0
    """Noise is divided by this: what a sum over so many times as many records would have."""

    @property
    def key(self) -> str:
        """Name of its folder and of its line in the results."""
        more = "" if self.more_records == 1 else f"-x{self.more_records:g}"
        return f"{self.arm}-alpha{self.alpha:g}-epsilon{self.epsilon:g}{more}-seed{self.seed}"


@dataclass(frozen=True, kw_only=True)
class FederatedPlan:
    """Sizes of the comparison."""

    banks: int = 5
    """Institutions."""
    alphas: tuple[float, ...] = (0.5, 0.1, 10.0)
    """Divisions; the first is that of the curves over epsilon."""
    epsilons: tuple[float, ...] = (math.inf, 8.0, 4.0, 2.0, 1.0)
    """Privacy, weakest first."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Repetitions."""
    more_records: tuple[float, ...] = (4.0, 16.0)
    """Multiples of the records that are tried at the weakest finite epsilon, by less noise."""
    train_examples: int = 2000
    """Records of each task, all banks together."""
    held_out: int = 200
    """Of them, those that no bank gets, for the attack."""
    test_examples: int = 40
    """Questions of each task."""
    rank: int = 8
    """Of all adapters."""
    rounds: int = 60
    """Without privacy: rounds of one step."""
    batch_size: int = 8
    """Without privacy: records of a bank's step."""
    private_rounds: int = 20
    """With privacy: few and large steps, since the noise of a step hardly grows with its batch."""
    private_batch_size: int = 72
    """With privacy."""
    many_rounds: int = 40
    """With privacy and more records than there are: noise matters less, so more steps pay."""
    many_batch_size: int = 36
    """The same, before it is multiplied."""
    many_clip: float = 3.0
    """The same; shorter ones silence the hard records, which have the longest gradients."""
    clip: float = 1.0
    """Longest gradient of a record, or without privacy of a batch."""

    def cells(self) -> Iterator[Cell]:
        """Yield all trainings, the most telling ones first, each kind with all its seeds."""
        first, infinite = self.alphas[0], (math.inf,)
        finite = tuple(epsilon for epsilon in self.epsilons if math.isfinite(epsilon))
        kinds = [
            *product(("central", "local", "ffa", "core"), (first,), infinite, (1.0,)),
            *product(("core", "central", "local"), (first,), finite[:1], (1.0,)),
            *product(("core",), (first,), finite[:1], self.more_records[:1]),
            *product(("ffa", "local"), self.alphas[1:], infinite, (1.0,)),
            *product(("core",), (first,), finite, (1.0,)),
            *product(get_args(Arm), (first,), infinite, (1.0,)),
            *product(("central", "local"), (first,), finite, (1.0,)),
            *product(("core",), (first,), finite[:1], self.more_records[1:]),
            *product(get_args(Arm), (first,), finite, (1.0,)),
        ]
        for arm, alpha, epsilon, times in dict.fromkeys(kinds):
            yield from (Cell(cast(Arm, arm), alpha, epsilon, seed, times) for seed in self.seeds)

    def settings(self, cell: Cell) -> FederatedSettings:
        """Return how a cell is trained; a party that is alone is a federation of one bank."""
        private = math.isfinite(cell.epsilon)
        # With privacy few values are best: noise grows with their number.
        alone: AdapterKind = "core" if private else "ffa"
        kind: AdapterKind = alone if cell.arm in ("central", "local") else cell.arm  # pyright: ignore
        banks = self.banks if cell.arm in FEDERATED_ARMS else 1
        rounds, batch, clip, rates = self.rounds, self.batch_size, self.clip, SERVER_RATES
        if cell.more_records > 1:
            rounds, batch, clip = self.many_rounds, self.many_batch_size, self.many_clip
        elif private:
            rounds, batch, rates = self.private_rounds, self.private_batch_size, PRIVATE_SERVER_RATES
        # As many records in a step as all banks together have.
        batch *= self.banks if cell.arm == "central" else 1
        local_steps = 4 if kind in LOCAL_ADAM else 1
        return FederatedSettings(
            adapter=kind,
            rank=self.rank,
            alpha=2 * self.rank,
            rounds=max(1, rounds // local_steps),
            local_steps=local_steps,
            batch_size=batch,
            learning_rate=5e-3,
            server_optimizer="none" if kind in LOCAL_ADAM else "adam",
            server_learning_rate=rates.get(kind, 5e-3),
            seed=cell.seed,
            epsilon=cell.epsilon,
            clip=clip,
            banks=banks,
            # A bank whose update points against all others sits a round out; the others go on.
            min_banks=max(1, banks - 2),
            timeout=24 * 3600.0,
            # Experts of one bank have no gate to pass; noise alone is longer than the default allows.
            max_norm=1e6,
        )
