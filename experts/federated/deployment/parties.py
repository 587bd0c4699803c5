"""What the server and a bank run beside Flower's processes, each from one file of its own."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from ...atomic_write import write_json
from ...base_model import load_base
from ...errors import FinLoraError
from ...tasks.examples import read_examples
from ..bank import Bank, WarmBase
from ..bank_app import bank_app
from ..randomness import Randomness
from ..server_app import ServerJob, server_app
from ..settings import BankSettings, FederatedSettings, from_record
from .tasks import Endpoint, do_bank_tasks, do_server_task

SUBMIT_SECONDS = 120.0
"""Longest wait for a run that was submitted to reach the server's process."""


@dataclass(frozen=True, kw_only=True)
class BankFile:
    """What a bank's process needs; every path is on the bank's own disk."""

    bank: BankSettings
    """What the bank decides for itself."""
    examples: str
    """JSONL file with the bank's records."""
    task: str
    """What they are questions of."""
    base: str
    """Base: embedded, a folder or a hub id; the same weights as the server's."""
    quantization: str
    """none, int8 or nf4."""
    supernode: str
    """host:port of the bank's SuperNode."""
    secret: str
    """File of the secret that the SuperNode was started with."""

    def write(self, file: Path) -> Path:
        """Write what `read` reads back."""
        record = asdict(self)
        # JSON has no infinity; `from_record` reads the text.
        record["bank"]["max_epsilon"] = str(self.bank.max_epsilon)
        write_json(file, record)
        return file

    @classmethod
    def read(cls, file: Path) -> "BankFile":
        """Read a bank's file.

        Raises:
            FinLoraError: It is missing, no JSON, or has unknown or missing fields.
        """
        record = _json(file)
        bank = record.get("bank")
        if not isinstance(bank, dict):
            raise FinLoraError(f'{file} needs a field "bank" with the bank\'s settings.')
        return from_record(cls, record | {"bank": from_record(BankSettings, bank)})


@dataclass(frozen=True, kw_only=True)
class ServerFile:
    """What the server's process needs."""

    settings: FederatedSettings
    """What all parties see."""
    out: str
    """Folder of the expert to write."""
    task: str
    """What the expert is for."""
    base: str
    """Base: embedded, a folder or a hub id."""
    quantization: str
    """none, int8 or nf4."""
    superlink: str
    """host:port of the SuperLink."""
    authority: str
    """Certificate to check the SuperLink's by."""
    secret: str
    """File of the secret that the SuperLink was started with."""
    public_examples: str = ""
    """JSONL file of examples that are nobody's secret; empty for none."""
    peers: str = ""
    """JSON file with every bank's public node key, for secure aggregation."""
    proofs: str = ""
    """Folder of the setup of proofs, made where it is missing; the banks get a copy."""
    srs: str = ""
    """Reference string of a public ceremony for the proofs; empty for one that is for tests only."""

    def write(self, file: Path) -> Path:
        """Write what `read` reads back."""
        write_json(file, asdict(self) | {"settings": self.settings.record()})
        return file

    @classmethod
    def read(cls, file: Path) -> "ServerFile":
        """Read a server's file.

        Raises:
            FinLoraError: It is missing, no JSON, or has unknown or missing fields.
        """
        record = _json(file)
        settings = record.get("settings")
        if not isinstance(settings, dict):
            raise FinLoraError(f'{file} needs a field "settings" with the settings of the run.')
        return from_record(cls, record | {"settings": from_record(FederatedSettings, settings)})


def run_bank(file: BankFile, *, randomness: Callable[[str, int], Randomness] | None = None) -> None:
    """Answer the server's messages from the bank's records until the process is stopped.

    Args:
        file: What the bank's operator wrote.
        randomness: As for `Bank`; for tests only.
    """
    warm = WarmBase(load_base(file.base, file.quantization))
    bank = Bank(file.bank, warm, read_examples(file.examples), task=file.task, randomness=randomness)
    do_bank_tasks(Endpoint(file.supernode, Path(file.secret)), bank_app(lambda _context: bank))


def run_server(file: ServerFile) -> Path:
    """Do the run that was submitted to the SuperLink; returns the expert's folder.

    Raises:
        FinLoraError: No run was submitted, or it cannot be finished.
    """
    warm = WarmBase(load_base(file.base, file.quantization))
    public = read_examples(file.public_examples) if file.public_examples else ()
    peers, proofs, srs = (Path(name) if name else None for name in (file.peers, file.proofs, file.srs))
    job = ServerJob(file.settings, Path(file.out), file.task, public, peers=peers, proofs=proofs, srs=srs)
    endpoint = Endpoint(file.superlink, Path(file.secret), Path(file.authority))
    try:
        do_server_task(endpoint, server_app(job, warm), timeout=SUBMIT_SECONDS)
    except TimeoutError:
        raise FinLoraError(
            f"No run was submitted to the SuperLink {file.superlink} within {SUBMIT_SECONDS:g} s; "
            "submit one with `flwr run`."
        ) from None
    return job.out


def _json(file: Path) -> dict:
    try:
        record = json.loads(Path(file).read_text(encoding="utf-8"))
    except OSError as error:
        raise FinLoraError(f"{file} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise FinLoraError(f"{file} is not valid JSON: {error}.") from error
    if not isinstance(record, dict):
        raise FinLoraError(f"{file} must hold a JSON object.")
    return record
