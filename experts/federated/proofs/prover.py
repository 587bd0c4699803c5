"""A bank's side of the proofs: checks the published setup by making it again, then proves its lanes.

The lanes lie in a temporary folder of the bank while ezkl works on them; only the proof leaves.
"""

import json
import secrets
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int32

from ..quantize import squared_norm
from .engine import ProofError, comparable, engine_errors, write_settings
from .setup import PROVING_FILE, SETTINGS_FILE, SRS_FILE, VERIFYING_FILE, ProofSetup, file_hash
from .statement import HIDING_BITS

CIRCUIT_FILE = "statement.ezkl"


@dataclass(frozen=True)
class Proven:
    """Lanes with their proof."""

    lanes: Int32[np.ndarray, " lane"]
    """The update's lanes, then fresh hiding lanes; this is what has to be masked."""
    proof: bytes
    """What the verifier gets."""


class Prover:
    """Proves one statement; keeps its proving key on disk between rounds."""

    def __init__(self, setup: ProofSetup, folder: Path) -> None:
        """Make the proving key, or take the one of before.

        Args:
            setup: What the server published.
            folder: The bank's own; about 150 MB for 3,584 values.

        Raises:
            ProofError: The published settings or verifying key are not those of the statement.
        """
        self.setup = setup
        self.folder = folder / setup.circuit_hash[:32]
        if not (self.folder / PROVING_FILE).is_file():
            shutil.rmtree(self.folder, ignore_errors=True)
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=folder) as made:
                self._make(Path(made))
                shutil.copytree(made, self.folder.with_suffix(".part"), dirs_exist_ok=True)
                self.folder.with_suffix(".part").rename(self.folder)

    def _make(self, made: Path) -> None:
        """Make circuit and keys from the statement, and compare what was published with them.

        Settings could make the lanes public, and another circuit could show more than the statement.
        """
        import ezkl

        graph, settings = made / "statement.onnx", self.setup.path(SETTINGS_FILE)
        self.setup.statement.write_onnx(graph)
        write_settings(self.setup.statement, graph, made / SETTINGS_FILE)
        own = json.loads((made / SETTINGS_FILE).read_text(encoding="utf-8"))
        published = json.loads(Path(settings).read_text(encoding="utf-8"))
        if comparable(own) != comparable(published):
            raise ProofError("The published settings of proofs are not those of the statement; take no part.")
        with engine_errors("ezkl could not make a proving key from the published setup."):
            ezkl.compile_circuit(str(graph), str(made / CIRCUIT_FILE), settings)
            ezkl.setup(
                str(made / CIRCUIT_FILE),
                str(made / VERIFYING_FILE),
                str(made / PROVING_FILE),
                self.setup.path(SRS_FILE),
                witness_path=None,
                disable_selector_compression=False,
            )
        if file_hash(made / VERIFYING_FILE) != self.setup.hashes[VERIFYING_FILE]:
            raise ProofError("The published verifying key is not that of the statement; take no part.")

    def prove(self, values: Int32[np.ndarray, " value"]) -> Proven:
        """Prove the statement about an update's lanes, with fresh hiding lanes.

        Raises:
            ProofError: The statement is not true of them.
        """
        if squared_norm(values) > self.setup.statement.squared_bound:
            raise ProofError("The update is longer than the proof allows; quantize shortens it.")
        hiding = [secrets.randbits(HIDING_BITS) for _ in range(self.setup.statement.hiding)]
        lanes = np.concatenate([values, np.array(hiding, np.int32)])
        proof, output = self.attempt(lanes)
        assert output == 1
        return Proven(lanes, proof)

    def attempt(self, lanes: Int32[np.ndarray, " lane"]) -> tuple[bytes, int]:
        """Return the proof of the circuit's output on these lanes, and the output: 1 where it is true.

        Raises:
            ProofError: There is no proof: a number is too large for the circuit, or the length is another.
        """
        import ezkl

        statement = self.setup.statement
        if lanes.shape != (statement.lanes,):
            raise ProofError(f"The statement is about {statement.lanes} lanes, got {lanes.size}.")
        circuit, srs = str(self.folder / CIRCUIT_FILE), self.setup.path(SRS_FILE)
        with tempfile.TemporaryDirectory() as scratch:
            data, witness, proof = (str(Path(scratch, name)) for name in ("lanes", "witness", "proof"))
            Path(data).write_text(json.dumps({"input_data": [lanes.tolist()]}), encoding="utf-8")
            with engine_errors("ezkl found no proof for these lanes."):
                ezkl.gen_witness(data, circuit, witness, self.setup.path(VERIFYING_FILE), srs)
                ezkl.prove(witness, circuit, str(self.folder / PROVING_FILE), proof, srs)
            made = json.loads(Path(proof).read_text(encoding="utf-8"))
        return bytes(made["proof"]), int.from_bytes(bytes.fromhex(made["instances"][0][0]), "little")
