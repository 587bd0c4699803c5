"""Checks one proof. The verifier fills in the output that it must have, 1: a bank cannot send another."""

import json
import tempfile
from pathlib import Path

import numpy as np
from jaxtyping import Int32

from .engine import ProofError, engine_errors
from .setup import SETTINGS_FILE, SRS_FILE, VERIFYING_FILE, ProofSetup

COMMITMENT_BYTES = 64
"""A point of BN254's first group: x, then y, each 32 bytes, big-endian."""

PROOF_BYTES = 3200
"""Length of every proof of these circuits, whatever their size. ezkl itself ignores bytes after the last."""

FIELD = 21888242871839275222246405745257275088548364400416034343698204186575808495617
"""Order of the group, modulo which lanes are numbers of the circuit."""


def commitment_of(proof: bytes) -> bytes:
    """Return the commitment to the lanes, with which every proof begins."""
    return proof[:COMMITMENT_BYTES]


def verify(setup: ProofSetup, proof: bytes) -> None:
    """Check that a proof shows the setup's statement of the lanes in its commitment.

    Raises:
        ProofError: It does not: changed, made with another circuit, or its statement is not true.
    """
    import ezkl

    if len(proof) != PROOF_BYTES:
        raise ProofError("The proof has a length that no proof has.")
    true = (1).to_bytes(32, "little").hex()
    record = {
        "protocol": None,
        "instances": [[true]],
        "proof": list(proof),
        "hex_proof": "0x" + proof.hex(),
        "split": None,
        "pretty_public_inputs": None,
        "timestamp": None,
        "version": None,
    }
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch, "proof")
        file.write_text(json.dumps(record), encoding="utf-8")
        with engine_errors("The proof does not hold."):
            holds = ezkl.verify(
                str(file),
                setup.path(SETTINGS_FILE),
                setup.path(VERIFYING_FILE),
                setup.path(SRS_FILE),
                reduced_srs=False,
            )
    if holds is not True:
        raise ProofError("The proof does not hold.")


def commit(setup: ProofSetup, lanes: Int32[np.ndarray, " lane"]) -> bytes:
    """Return the commitment that a proof of these lanes begins with.

    Raises:
        ProofError: There are more or fewer lanes than the statement is about.
    """
    import ezkl

    if lanes.shape != (setup.statement.lanes,):
        raise ProofError(f"The statement is about {setup.statement.lanes} lanes, got {lanes.size}.")
    message = [(lane % FIELD).to_bytes(32, "little").hex() for lane in lanes.tolist()]
    files = (setup.path(name) for name in (VERIFYING_FILE, SETTINGS_FILE, SRS_FILE))
    with engine_errors("ezkl could not commit to the lanes."):
        points = ezkl.kzg_commit(message, *files)
    # ezkl's stub of the point names no fields; they are little-endian.
    return b"".join(bytes.fromhex(getattr(points[0], name))[::-1] for name in ("x", "y"))
