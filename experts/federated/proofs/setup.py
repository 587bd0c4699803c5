"""What the server makes once for a run and publishes: settings, verifying key, reference string, hashes.

No update is needed for it, neither real nor invented: the statement alone determines the circuit. A bank
does not trust it; it makes the circuit again from the statement (`prover.py`) and compares.

Soundness rests on the structured reference string (SRS): whoever knows the number it was made from can
prove anything. An SRS that was generated here is marked "test"; give the file of a public ceremony for
real use.
"""

import dataclasses
import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ...atomic_write import write_json
from ...errors import FinLoraError
from .engine import ProofError, engine_errors, write_settings
from .statement import NormStatement

SETUP_FILE = "setup.json"
SETTINGS_FILE = "settings.json"
VERIFYING_FILE = "verifying.key"
PROVING_FILE = "proving.key"
SRS_FILE = "kzg.srs"
PUBLISHED = (SETTINGS_FILE, VERIFYING_FILE, SRS_FILE)

Srs = Literal["test", "public"]


@dataclass(frozen=True)
class ProofSetup:
    """A published setup on disk, its files checked against its hashes."""

    folder: Path
    """Holds the files."""
    statement: NormStatement
    """What proofs under it show."""
    srs: Srs
    """Where the reference string came from: "test" was made here, so its maker could forge proofs."""
    hashes: dict[str, str]
    """File -> SHA-256."""

    @property
    def circuit_hash(self) -> str:
        """Names the circuit, its keys and its reference string; what banks sign and settings quote."""
        return hashlib.sha256(json.dumps(self.record(), sort_keys=True).encode()).hexdigest()

    def record(self) -> dict[str, Any]:
        """Return the content of the file that names the rest."""
        return {"statement": dataclasses.asdict(self.statement), "srs": self.srs, "sha256": self.hashes}

    def path(self, name: str) -> str:
        """Return the path of a file as ezkl wants it."""
        return str(self.folder / name)


def make_setup(folder: Path, statement: NormStatement, *, srs: Path | None = None) -> ProofSetup:
    """Make the setup of a run in a new folder.

    Args:
        folder: Folder to create.
        statement: What banks shall prove.
        srs: Reference string of a public ceremony, of the circuit's size; None makes one for tests.

    Raises:
        FinLoraError: The folder exists, or ezkl cannot use the reference string.
    """
    import ezkl

    folder.mkdir(parents=True)
    graph, circuit = folder / "statement.onnx", folder / "statement.ezkl"
    statement.write_onnx(graph)
    write_settings(statement, graph, folder / SETTINGS_FILE)
    logrows = json.loads((folder / SETTINGS_FILE).read_text(encoding="utf-8"))["run_args"]["logrows"]
    if srs is None:
        ezkl.gen_srs(str(folder / SRS_FILE), logrows)
    else:
        shutil.copyfile(srs, folder / SRS_FILE)
    with engine_errors(f"ezkl could not make keys; the reference string must be one for 2^{logrows} rows."):
        ezkl.compile_circuit(str(graph), str(circuit), str(folder / SETTINGS_FILE))
        ezkl.setup(
            str(circuit),
            str(folder / VERIFYING_FILE),
            str(folder / PROVING_FILE),
            str(folder / SRS_FILE),
            witness_path=None,
            disable_selector_compression=False,
        )
    # Provers make the proving key themselves; it is large, and theirs shows that the verifying key is right.
    for file in (graph, circuit, folder / PROVING_FILE):
        file.unlink()
    hashes = {name: file_hash(folder / name) for name in PUBLISHED}
    setup = ProofSetup(folder, statement, "test" if srs is None else "public", hashes)
    write_json(folder / SETUP_FILE, setup.record())
    return setup


def open_setup(folder: Path) -> ProofSetup:
    """Read a published setup and check its files.

    Raises:
        ProofError: A file is missing or is not the one that was published.
    """
    try:
        record = json.loads((folder / SETUP_FILE).read_text(encoding="utf-8"))
        statement = NormStatement(**record["statement"])
        setup = ProofSetup(
            folder, statement, record["srs"], {name: record["sha256"][name] for name in PUBLISHED}
        )
    except (OSError, ValueError, KeyError, TypeError, FinLoraError) as error:
        raise ProofError(
            f"{folder} holds no setup of proofs; get the folder that the server published."
        ) from error
    for name, expected in setup.hashes.items():
        if not (folder / name).is_file() or file_hash(folder / name) != expected:
            raise ProofError(f"{folder / name} is not the file that was published; get the folder again.")
    return setup


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
