"""Proofs at full size: seconds, bytes, and every way to cheat of the documentation, tried one by one.

    python -m finlora.benchmarks.federated.proof_check --values 3584 --out docs/results/federated/proofs.md

Seconds of a processor stand beside seconds of the clock, because the clock also counts what else the
machine does. The server's reference string is made here, so it is one for tests; a public one of the same
size costs the same.
"""

import argparse
import os
import platform
import resource
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import TypeVar

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from jaxtyping import Int32

from ...experts.atomic_write import write_text
from ...experts.federated.proofs.binding import check_submission, check_sum, submit
from ...experts.federated.proofs.engine import ProofError
from ...experts.federated.proofs.prover import Proven, Prover
from ...experts.federated.proofs.setup import SRS_FILE, make_setup
from ...experts.federated.proofs.statement import NormStatement
from ...experts.federated.proofs.verifier import PROOF_BYTES, commit, commitment_of, verify
from ...experts.federated.quantize import SCALE, quantize
from ...experts.provenance import source_commit

RUN, ROUND, BANKS = "check", 1, ("north", "south", "west")
MAX_NORM = 3.0
VERIFICATIONS = 10
T = TypeVar("T")
Timing = tuple[float, float]
"""Seconds of the clock and of the processor."""


def timed(do: Callable[[], T]) -> tuple[T, Timing]:
    """Return what a call returns and how long it took."""
    before, started = _processor_seconds(), time.perf_counter()
    result = do()
    return result, (time.perf_counter() - started, _processor_seconds() - before)


def _processor_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


class ProofCheck:
    """One server and three banks with updates of one length."""

    def __init__(self, folder: Path, values: int) -> None:
        self.values, self.folder = values, folder
        self.keys = {bank: Ed25519PrivateKey.generate() for bank in BANKS}
        self.setup, self.setup_time = timed(
            lambda: make_setup(folder / "setup", NormStatement.of(values, MAX_NORM))
        )
        self.prover, self.prepare_time = timed(lambda: Prover(self.setup, folder / "bank"))
        self.proven: dict[str, Proven] = {}
        self.prove_times: list[Timing] = []
        for seed, bank in enumerate(BANKS):
            lanes = self.update(seed)
            self.proven[bank], spent = timed(lambda lanes=lanes: self.prover.prove(lanes))
            self.prove_times.append(spent)
        self.verify_times = [
            timed(lambda: verify(self.setup, self.proven[BANKS[0]].proof))[1] for _ in range(VERIFICATIONS)
        ]
        _, self.sum_time = timed(lambda: check_sum(self.setup, self.commitments(), self.total()))

    def update(self, seed: int) -> Int32[np.ndarray, " value"]:
        """Lanes of a random update of nine tenths of the allowed norm."""
        vector = np.random.default_rng(seed).normal(size=self.values)
        scaled = (vector * 0.9 * MAX_NORM / np.linalg.norm(vector)).astype(np.float32)
        return quantize(scaled, max_norm=MAX_NORM)

    def commitments(self) -> dict[str, bytes]:
        """Each bank's commitment."""
        return {bank: commitment_of(made.proof) for bank, made in self.proven.items()}

    def total(self) -> Int32[np.ndarray, " lane"]:
        """The aggregate."""
        return np.stack([made.lanes for made in self.proven.values()]).sum(axis=0, dtype=np.int32)

    def submitted(self, proof: bytes, *, round_number: int = ROUND) -> None:
        """Submit a proof as the first bank for a round, and check it as the server does in round `ROUND`."""
        bank = BANKS[0]
        given = submit(self.setup, self.keys[bank], RUN, round_number, bank, proof)
        check_submission(self.setup, self.keys[bank].public_key(), RUN, ROUND, bank, given)

    def of_norm(self, scale: float) -> Int32[np.ndarray, " lane"]:
        """Lanes of so many times the allowed norm, with honest hiding lanes."""
        lanes = self.proven[BANKS[0]].lanes.copy()
        lanes[: self.values] = np.round(scale * MAX_NORM * SCALE / np.sqrt(self.values))
        return lanes

    def flipped_byte(self) -> None:
        """One bit of each of 40 bytes, one at a time; the first that passes ends this without an error."""
        proof = self.proven[BANKS[0]].proof
        for position in np.linspace(0, PROOF_BYTES - 1, 40).astype(int):
            changed = bytearray(proof)
            changed[position] ^= 1
            try:
                verify(self.setup, bytes(changed))
            except ProofError:
                continue
            return
        raise ProofError("All 40 changed proofs were refused.")

    def other_circuit(self) -> None:
        """A true proof under a key for a hundred times the norm."""
        srs = self.setup.folder / SRS_FILE
        own = make_setup(self.folder / "own", NormStatement.of(self.values, 100 * MAX_NORM), srs=srs)
        proof, output = Prover(own, self.folder / "own-bank").attempt(self.of_norm(50.0))
        assert output == 1
        self.submitted(proof)

    def output_of_zero(self) -> None:
        """A norm of 1.01 C: ezkl proves the output 0."""
        proof, output = self.prover.attempt(self.of_norm(1.01))
        assert output == 0
        self.submitted(proof)

    def too_long(self) -> None:
        """A norm of 1.01 C, given to the bank's own prover."""
        self.prover.prove(self.of_norm(1.01)[: self.values])

    def masked_other_lanes(self) -> None:
        """The first bank proves its update and masks the opposite."""
        lanes = self.proven[BANKS[0]].lanes
        check_sum(self.setup, self.commitments(), (self.total() - 2 * lanes).astype(np.int32))

    def off_by_one(self) -> None:
        """The aggregate with one lane one unit higher."""
        total = self.total()
        total[self.values // 2] += 1
        check_sum(self.setup, self.commitments(), total)

    def junk(self) -> None:
        """Random lanes of the right length, their true commitment, and random bytes for a proof."""
        rng = np.random.default_rng(9)
        lanes = rng.integers(-(2**30), 2**30, self.setup.statement.lanes).astype(np.int32)
        self.submitted(commit(self.setup, lanes) + rng.bytes(PROOF_BYTES - 64))

    def refusals(self) -> list[tuple[str, str]]:
        """What was tried, and the sentence with which it was refused.

        Raises:
            RuntimeError: Something was accepted.
        """
        proof = self.proven[BANKS[0]].proof
        tries: dict[str, Callable[[], None]] = {
            "flipped bytes (40 places)": self.flipped_byte,
            "another circuit's key": self.other_circuit,
            "a replayed round": lambda: self.submitted(proof, round_number=ROUND - 1),
            "output bit 0 (norm 1.01 C)": self.output_of_zero,
            "norm 1.01 C, asked of the prover": self.too_long,
            "commitment that is not the masked vector": self.masked_other_lanes,
            "aggregate off by one unit in one lane": self.off_by_one,
            "junk adapter of the right shape": self.junk,
        }
        refused = []
        for name, attempt in tries.items():
            try:
                attempt()
            except ProofError as error:
                refused.append((name, str(error)))
            else:
                raise RuntimeError(f"Accepted: {name}.")
        return refused


def report(check: ProofCheck, command: str) -> str:
    """Return the page."""
    proofs = sorted(check.prove_times)
    rows = [
        ("server: reference string, settings, keys (once a run)", check.setup_time),
        ("bank: makes and compares its keys (once a run)", check.prepare_time),
        (f"bank: one proof, median of {len(proofs)}", proofs[len(proofs) // 2]),
        ("bank: one proof, slowest", proofs[-1]),
        (f"server: verifies one proof, median of {VERIFICATIONS}", _median(check.verify_times)),
        ("server: verifies one proof, slowest", max(check.verify_times)),
        (f"server: sum of {len(BANKS)} commitments against the aggregate", check.sum_time),
    ]
    lanes = check.setup.statement
    load = " ".join(f"{value:.1f}" for value in os.getloadavg())
    lines = [
        f"# Proofs of bounded updates: {lanes.values:,} values",
        "",
        f"`{command}`, commit {source_commit()}, {os.cpu_count()} cores ({platform.machine()}), load "
        f"{load} (1, 5 and 15 minutes; above {os.cpu_count()} others were computing, too), "
        f"niceness {os.nice(0)}.",
        f"Update of {lanes.values:,} lanes and {lanes.hiding} hiding lanes, C = {MAX_NORM:g}; one proof has "
        f"{PROOF_BYTES:,} bytes.",
        "",
        "| Step | seconds | of the processor |",
        "| :-- | --: | --: |",
        *(f"| {name} | {clock:.3f} | {processor:.3f} |" for name, (clock, processor) in rows),
        "",
        "| Tried | Refused with |",
        "| :-- | :-- |",
        *(f"| {name} | {cause} |" for name, cause in check.refusals()),
        "",
        "The reference string was made for this run: it is for tests. What a proof shows and what it",
        "does not stands in [federated.md](../../federated.md).",
        "",
    ]
    return "\n".join(lines)


def _median(times: list[Timing]) -> Timing:
    return median(clock for clock, _ in times), median(processor for _, processor in times)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--values", type=int, default=3584, help="values of an update")
    parser.add_argument("--out", type=Path, required=True, help="Markdown file to write")
    words = parser.parse_args()
    command = f"python -m finlora.benchmarks.federated.proof_check --values {words.values} --out {words.out}"
    with TemporaryDirectory() as folder:
        page = report(ProofCheck(Path(folder), words.values), command)
    words.out.parent.mkdir(parents=True, exist_ok=True)
    write_text(words.out, page)
    print(page)


if __name__ == "__main__":
    main()
