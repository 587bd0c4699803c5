"""The server: rounds of asking banks, checking what they send, combining it, keeping or dropping the result.

Start reading at `run_rounds`. The global adapter changes in one place, after every check; what fails one
leaves it as it was and stands in the audit log. The state is on disk after each round, so a server that was
killed at any moment goes on with the same command, and ends with the same adapter.
"""

import json
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from ..adapter import METADATA_FILE
from ..atomic_write import write_text
from ..errors import FinLoraError
from ..provenance import source_commit
from ..run_folder import RunFolder, open_run
from ..tasks.task import Example
from .adapters import FederatedAdapter
from .audit_log import AuditLog
from .bank import WarmBase
from .combining import RULES, combine, opposed_banks
from .exchange import Exchange
from .expert_folder import write_expert
from .gate import Gate, GateError
from .manifest import Manifest, Update, UpdateError
from .messages import FINISH, TRAIN, Content
from .public_loss import PublicLoss
from .secure_round import SecureRounds, open_secure_rounds
from .server_optimizer import Moments, adam_step
from .server_state import ServerState, load_state, save_state
from .settings import FederatedSettings

LOG_FILE = "audit.jsonl"
JOIN_SECONDS = 30.0
"""Longest wait for a bank that was silent to say that it is back."""


@dataclass(frozen=True)
class ServerJob:
    """One run as the server's operator starts it."""

    settings: FederatedSettings
    """What all parties see."""
    out: Path
    """Folder of the expert to write, or that of the same run to resume."""
    task: str
    """What the expert is for."""
    public_examples: Sequence[Example] = ()
    """Examples that are nobody's secret: a candidate that answers them worse is dropped. None: no such
    check."""
    peers: Path | None = None
    """JSON file with every bank's public node key, for secure aggregation."""
    proofs: Path | None = None
    """Folder of the setup of proofs, which the banks get; made where it is missing."""
    srs: Path | None = None
    """Reference string of a public ceremony for the proofs; without it one is made that is for tests only."""

    def record(self, warm: WarmBase) -> dict[str, Any]:
        """Return what determines the result, as `run_folder` compares it."""
        base = warm.base
        return {
            "task": self.task,
            "base": base.name,
            "base_revision": base.revision,
            "quantization": base.quantization,
            "federated": {"settings": self.settings.record()},
        }


@dataclass(frozen=True)
class Gathered:
    """What the banks' answers of one round came to."""

    updates: Mapping[str, Update]
    """Bank -> its update; with secure aggregation the mean of all, under one name."""
    banks: list[str]
    """Banks whose updates are in it, sorted."""
    bytes_up: int
    """What the banks sent, without Flower's own."""


class Server:
    """One run in progress."""

    def __init__(self, grid: Grid, job: ServerJob, warm: WarmBase, run: RunFolder) -> None:
        self.job, self.warm, self.folder = job, warm, run
        self.settings = job.settings
        self.audit = AuditLog(run.scratch / LOG_FILE)
        self.adapter: FederatedAdapter = warm.adapter(job.settings)
        started = ServerState(secrets.token_hex(8), 0, self.adapter.read(self.adapter.all_shared()))
        self.state = load_state(run.scratch) or started
        save_state(run.scratch, self.state)
        self.exchange = Exchange(grid, self.state.run, self.audit.write)
        loss = PublicLoss(warm, job.settings, job.public_examples) if job.public_examples else None
        self.gate = Gate(max_norm=job.settings.max_norm, loss=loss)
        self.secure = self._open_secure_rounds() if job.settings.secure_aggregation else None

    def header(self, round_number: int) -> dict[str, Any]:
        """Return what every question says."""
        return {"run": self.state.run, "round": round_number, "settings": self.settings.to_json()}

    def run_round(self) -> None:
        """Ask, check, combine, accept or roll back; then save the state."""
        number = self.state.round_number + 1
        started = time.monotonic()
        if self.exchange.silent or number == 1:
            self.exchange.meet(self.header(number), round_number=number, timeout=JOIN_SECONDS)
        asked = [bank for bank in sorted(self.exchange.banks) if bank not in self.exchange.silent]
        manifest = self.adapter.manifest(self.state.run, number)
        gather = self._gather_openly if self.secure is None else self._gather_secretly
        gathered = gather(manifest, asked, number)
        tensors, moments, accepted = self._next(manifest, gathered, number)
        entry = {
            "round": number,
            "banks": gathered.banks,
            "accepted": accepted,
            "seconds": round(time.monotonic() - started, 3),
            "bytes_up": gathered.bytes_up,
            "bytes_down": _bytes(self.state.tensors) * len(asked),
        }
        self.state = ServerState(self.state.run, number, tensors, [*self.state.history, entry], moments)
        save_state(self.folder.scratch, self.state)

    def _open_secure_rounds(self) -> SecureRounds:
        manifest = self.adapter.manifest(self.state.run, 1)
        job = self.job
        return open_secure_rounds(
            self.exchange, job.settings, manifest, peers=job.peers, proofs=job.proofs, srs=job.srs
        )

    def _gather_openly(self, manifest: Manifest, asked: Sequence[str], number: int) -> "Gathered":
        question = Content(self.header(number), self.state.tensors)
        answers = self.exchange.ask(
            TRAIN, dict.fromkeys(asked, question), round_number=number, timeout=self.settings.timeout
        )
        updates = self._acceptable(manifest, answers, number)
        return Gathered(
            updates, sorted(updates), sum(_bytes(content.tensors) for content in answers.values())
        )

    def _gather_secretly(self, manifest: Manifest, asked: Sequence[str], number: int) -> "Gathered":
        assert self.secure is not None
        try:
            header = self.header(number)
            mean = self.secure.run(header, self.state.tensors, manifest, round_number=number, asked=asked)
            self.gate.check_update(mean.update)
        except FinLoraError as error:
            self.audit.write(number, "", str(error))
            return Gathered({}, [], 0)
        return Gathered({"mean": mean.update}, mean.banks, mean.bytes_up)

    def _acceptable(
        self, manifest: Manifest, answers: Mapping[str, Content], number: int
    ) -> dict[str, Update]:
        updates = {}
        for bank, content in answers.items():
            try:
                manifest.check(content.tensors)
                self.gate.check_update(content.tensors)
                updates[bank] = content.tensors
            except (UpdateError, GateError) as error:
                self.audit.write(number, bank, str(error))
        for bank in opposed_banks(manifest, updates):
            self.audit.write(number, bank, "The update points against the sum of all others.")
            del updates[bank]
        return updates

    def _next(
        self, manifest: Manifest, gathered: "Gathered", number: int
    ) -> tuple[Mapping[str, np.ndarray], Moments, bool]:
        if len(gathered.banks) < self.settings.min_banks:
            needed = self.settings.min_banks
            cause = f"{len(gathered.banks)} usable updates, {needed} needed; the adapter stays as it was."
            self.audit.write(number, "", cause)
            return self.state.tensors, self.state.moments, False
        rule = RULES[self.settings.combination]
        try:
            candidate = combine(self.adapter, manifest, self.state.tensors, gathered.updates, rule)
            candidate, moments = self._step(manifest, candidate, number)
            self.gate.check_candidate(self.state.tensors, candidate)
        except FinLoraError as error:
            self.audit.write(number, "", f"{error} The adapter stays as it was.")
            return self.state.tensors, self.state.moments, False
        return candidate, moments, True

    def _step(
        self, manifest: Manifest, combined: Update, number: int
    ) -> tuple[Mapping[str, np.ndarray], Moments]:
        if self.settings.server_optimizer == "none":
            return combined, self.state.moments
        return adam_step(
            self.state.tensors,
            combined,
            self.state.moments,
            manifest.names,
            learning_rate=self.settings.server_learning_rate,
            round_number=number,
            rounds=self.settings.rounds,
        )

    def finish(self) -> Path:
        """Send the final adapter to the banks, write the expert, and mark the run as finished."""
        question = Content(self.header(self.settings.rounds), self.state.tensors)
        self.exchange.ask(
            FINISH,
            dict.fromkeys(self.exchange.banks, question),
            round_number=self.settings.rounds,
            timeout=self.settings.timeout,
        )
        self.adapter = self.warm.adapter(self.settings)
        self.adapter.write(self.state.tensors)
        metadata = self.job.record(self.warm)
        metadata["federated"] |= {"run": self.state.run, "rounds": self.state.history}
        metadata |= {"seed": self.settings.seed, "commit": source_commit()}
        write_text(self.folder.out / LOG_FILE, "".join(map(_line, self.audit.entries())))
        write_expert(self.adapter, self.folder.out, metadata)
        self.folder.finish()
        return self.folder.out


def run_rounds(grid: Grid, job: ServerJob, warm: WarmBase) -> Path:
    """Run a federated training to its end, from where it stands; returns the expert's folder.

    Args:
        grid: Flower's way to the banks.
        job: What to train and where to write it.
        warm: The base, which the server needs to know the adapter's shapes and to try candidates.

    Raises:
        FinLoraError: Too few banks join, or the folder is finished or holds another run.
    """
    run = open_run(Path(job.out), job.record(warm), result=METADATA_FILE)
    server = Server(grid, job, warm, run)
    settings = job.settings
    server.exchange.gather(server.header(0), count=settings.banks, timeout=settings.timeout)
    while server.state.round_number < settings.rounds:
        server.run_round()
    if not any(entry["accepted"] for entry in server.state.history):
        raise FinLoraError(
            f"No round changed the adapter, so there is no expert; {run.scratch / LOG_FILE} names the causes."
        )
    return server.finish()


def server_app(job: ServerJob, warm: WarmBase) -> ServerApp:
    """Return the Flower app of one run."""
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        run_rounds(grid, job, warm)

    return app


def _line(entry: dict[str, Any]) -> str:
    return json.dumps(entry, ensure_ascii=False) + "\n"


def _bytes(tensors: Update) -> int:
    return sum(values.nbytes for values in tensors.values())
