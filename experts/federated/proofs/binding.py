"""What ties a proof to a bank, a round and the sum: alone it could be replayed, lent or be about other lanes.

Commitments add up like lanes do: C(a + b) = C(a) + C(b) - C(0), where C(0) stands for cells that every
vector has alike. So the sum of the banks' commitments must be that of the aggregate which secure
aggregation gave. If a bank masked other lanes than it proved, or somebody changed the aggregate by one
unit in one lane, it is not. The check shows that something is wrong, not which bank did it.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int32

from ..signing import PrivateKey, PublicKey, is_signed, sign, statement
from .engine import ProofError
from .setup import ProofSetup
from .verifier import COMMITMENT_BYTES, commit, commitment_of, verify


@dataclass(frozen=True)
class Submission:
    """What a bank sends beside its masked lanes."""

    proof: bytes
    """Begins with the commitment."""
    signature: bytes
    """Of run, round, bank, circuit and proof by the bank's node key."""


def claim(setup: ProofSetup, run: str, round_number: int, bank: str, proof: bytes) -> bytes:
    """Return what a bank signs: this proof is mine, in this round of this run, for this circuit."""
    digest = hashlib.sha256(proof).digest()
    return statement("proof", run, round_number, bank, setup.circuit_hash, commitment_of(proof), digest)


def submit(
    setup: ProofSetup, key: PrivateKey, run: str, round_number: int, bank: str, proof: bytes
) -> Submission:
    """Return a proof with the bank's signature."""
    return Submission(proof, sign(key, claim(setup, run, round_number, bank, proof)))


def check_submission(
    setup: ProofSetup, key: PublicKey, run: str, round_number: int, bank: str, submission: Submission
) -> bytes:
    """Check who submitted a proof, for when, and that it holds; return its commitment.

    Args:
        setup: The run's circuit.
        key: The bank's public node key.
        run: Name of the run.
        round_number: The round in progress.
        bank: From whom the submission came.
        submission: What came.

    Raises:
        ProofError: The signature is not the bank's for this round and circuit, or the proof does not hold.
    """
    message = claim(setup, run, round_number, bank, submission.proof)
    if not is_signed(key, submission.signature, message):
        raise ProofError("The proof is not signed by this bank for this round and circuit.")
    verify(setup, submission.proof)
    return commitment_of(submission.proof)


def check_sum(setup: ProofSetup, commitments: Mapping[str, bytes], total: Int32[np.ndarray, " lane"]) -> None:
    """Check that an aggregate is the sum of the lanes in the banks' commitments.

    Args:
        setup: The run's circuit.
        commitments: Bank -> commitment, of exactly the banks in the sum.
        total: The aggregate, hiding lanes included.

    Raises:
        ProofError: It is not, or a commitment is no point of the curve.
    """
    zero = commit(setup, np.zeros(setup.statement.lanes, np.int32))
    expected = add_points([commit(setup, total), *[zero] * (len(commitments) - 1)])
    if add_points(list(commitments.values())) != expected:
        raise ProofError("The aggregate is not the sum of the updates that the banks proved.")


def add_points(points: list[bytes]) -> tuple[int, int] | None:
    """Return the sum of points of BN254's first group; None is the point at infinity.

    Raises:
        ProofError: The bytes are no point.
    """
    from py_ecc.bn128.bn128_curve import add, b, field_modulus, is_on_curve
    from py_ecc.fields import bn128_FQ

    total = None
    for data in points:
        x, y = int.from_bytes(data[:32], "big"), int.from_bytes(data[32:], "big")
        if len(data) != COMMITMENT_BYTES or max(x, y) >= field_modulus:
            raise ProofError("A commitment is no point of the curve.")
        point = bn128_FQ(x), bn128_FQ(y)
        if not is_on_curve(point, b):
            raise ProofError("A commitment is no point of the curve.")
        total = add(total, point)
    return None if total is None else (int(total[0]), int(total[1]))
