"""A bank's process for tests: noise from a seed, and in round 2 the fault that the run's seed chooses."""

import os
import sys
import time
from pathlib import Path

import numpy as np

from finlora.experts.base_model import load_base
from finlora.experts.federated.bank import Bank, WarmBase
from finlora.experts.federated.bank_app import bank_app
from finlora.experts.federated.deployment.parties import BankFile
from finlora.experts.federated.deployment.tasks import Endpoint, do_bank_tasks
from finlora.experts.federated.messages import TRAIN, Content
from finlora.experts.federated.randomness import Randomness
from finlora.experts.federated.settings import FederatedSettings
from finlora.experts.tasks.examples import read_examples

CULPRIT = "bank-1"
FAULT_SEEDS = {"raises": 21, "is killed": 22, "hangs": 23, "NaN": 24, "inf": 25}
"""Fault -> seed of the run in which it happens."""
DROPS_AFTER_SHARING = 26
"""Seed of a secret run in which the bank shares its keys and then sends no masked update."""


def seeded_noise(bank: str):
    """Noise that a test can repeat; each bank and round has its own."""
    return lambda _run, round_number: Randomness.seeded(f"noise {bank} {round_number}".encode())


class FaultyBank(Bank):
    """Does as a bank does, until its fault is due."""

    def answer(self, kind: str, asked: Content) -> Content:
        """Answer, or fail."""
        seed = FederatedSettings.from_json(str(asked.header["settings"])).seed
        fault = {seed: fault for fault, seed in FAULT_SEEDS.items()}.get(seed)
        if seed == DROPS_AFTER_SHARING:
            fault = "raises"
        if self.settings.name != CULPRIT or kind != TRAIN or asked.header["round"] != 2 or fault is None:
            return super().answer(kind, asked)
        if fault == "raises":
            raise ValueError("balance 4711.25")
        if fault == "is killed":
            os._exit(1)
        if fault == "hangs":
            time.sleep(45)
        content = super().answer(kind, asked)
        name = sorted(content.tensors)[0]
        bad = content.tensors[name].copy()
        bad[0, 0] = {"NaN": np.nan, "inf": np.inf}.get(fault, 0.0)
        return Content(content.header, {**content.tensors, name: bad})


if __name__ == "__main__":
    file = BankFile.read(Path(sys.argv[1]))
    bank = FaultyBank(
        file.bank,
        WarmBase(load_base(file.base, file.quantization)),
        read_examples(file.examples),
        task=file.task,
        randomness=seeded_noise(file.bank.name),
    )
    do_bank_tasks(Endpoint(file.supernode, Path(file.secret)), bank_app(lambda _context: bank))
