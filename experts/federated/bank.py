"""One bank: answers the server from its own records, and keeps on its own disk what a restart must not lose.

Its base model stays loaded between rounds. What it never sends: records, their number, losses, its settings,
the text of an exception.
"""

import hashlib
import json
import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save

from ..atomic_write import write_bytes
from ..base_model import Base
from ..encoding import Encoded, encode_examples, token_limit
from ..errors import FinLoraError
from ..provenance import source_commit
from ..tasks.task import Example
from .accounting import PrivacyPlan
from .adapters import FederatedAdapter
from .expert_folder import write_expert
from .identity import Identity
from .ledger import BudgetError, Ledger
from .manifest import Update
from .messages import FINISH, JOIN, TRAIN, Content, MessageError, number_of, text_of
from .private_training import LocalTraining, Randomness, train_locally
from .secure_answers import SecureAnswers
from .secure_messages import KEYS, NOT_OF_THE_ADAPTER, REVEAL, SHARES
from .settings import BankSettings, FederatedSettings

ANSWER_FILE = "answer.safetensors"
LEDGER_FILE = "ledger.json"
EXPERT_FOLDER = "expert"


class RefusalError(FinLoraError):
    """The bank takes no part. Its text is meant for the server and holds nothing that is not public."""


class WarmBase:
    """A loaded base with the adapter of the current run on it; several simulated banks share one."""

    def __init__(self, base: Base) -> None:
        self.base = base
        self.lock = threading.Lock()
        """Held by whoever trains or answers with the base."""
        self._adapter: FederatedAdapter | None = None

    def adapter(self, settings: FederatedSettings) -> FederatedAdapter:
        """Return the adapter of a run with its initial values, the one of before taken off."""
        if self._adapter is None or self._adapter.settings != settings:
            self.remove()
            self._adapter = FederatedAdapter(self.base, settings)
        self._adapter.write(self._adapter.initial)
        return self._adapter

    def remove(self) -> None:
        """Take the adapter off, so that the base is as it was."""
        if self._adapter is not None:
            self._adapter.remove()
            self._adapter = None


@dataclass(frozen=True)
class Answered:
    """The last answer of a bank in one run, as its disk keeps it."""

    round_number: int
    """Its round, counted from 1; 0 before the first."""
    request: str
    """Hash of what was asked, so that the same question gets the same answer and costs no privacy again."""
    update: Update
    """What was sent."""
    private: Update
    """Trained tensors that are never sent, as they were after the round."""


class Bank:
    """Answers the three questions of a server: join, train, finish."""

    def __init__(
        self,
        settings: BankSettings,
        warm: WarmBase,
        examples: Sequence[Example],
        *,
        task: str,
        randomness: Callable[[str, int], Randomness] | None = None,
    ) -> None:
        """Tokenize the records; those too long for the base are left out.

        Args:
            settings: What the bank decides for itself.
            warm: The loaded base.
            examples: The bank's records.
            task: What they are questions of, for `expert.json`.
            randomness: Run and round -> where sampling and noise come from in a private run. Only for tests
                of
                equality: noise that somebody can foresee protects nobody. By default the operating system.

        Raises:
            FinLoraError: No record fits the base.
        """
        limit = token_limit(warm.base.model.config)
        rows = encode_examples(warm.base.tokenizer, examples)
        self.settings, self.warm, self.task = settings, warm, task
        self.rows: list[Encoded] = [row for row in rows if len(row.input_ids) <= limit]
        if not self.rows:
            raise FinLoraError(f"The bank {settings.name} has no record that fits the base {warm.base.name}.")
        self._randomness = randomness or (lambda _run, _round: Randomness.system())
        self._plans: dict[FederatedSettings, tuple[PrivacyPlan, Ledger]] = {}
        self._secure = SecureAnswers(Identity.of(settings), Path(settings.folder)) if settings.peers else None
        self._handlers = {
            JOIN: self._join,
            KEYS: self._secure_step,
            SHARES: self._secure_step,
            TRAIN: self._train,
            REVEAL: self._secure_step,
            FINISH: self._finish,
        }

    def answer(self, kind: str, asked: Content) -> Content:
        """Answer one question of the server.

        Raises:
            RefusalError: The bank takes no part; the text may be sent.
            Exception: Anything else that went wrong; its text stays in the bank.
        """
        if kind not in self._handlers:
            raise RefusalError("The bank does not know this kind of message.")
        settings = _settings_of(asked)
        reason = self.settings.refuse(settings)
        if reason is not None:
            raise RefusalError(reason)
        with self.warm.lock:
            return self._handlers[kind](kind, asked, settings)

    def _join(self, kind: str, asked: Content, settings: FederatedSettings) -> Content:
        return Content({"bank": self.settings.name, "run": text_of(asked.header, "run")})

    def _secure_step(self, kind: str, asked: Content, settings: FederatedSettings) -> Content:
        run, round_number = _round_of(asked, settings)
        if self._secure is None:
            raise RefusalError("This bank takes part in no secret sums.")
        if kind == KEYS:
            values = self.warm.adapter(settings).manifest(run, round_number).size
            fields = self._secure.keys(run, round_number, settings, values, self._folder(run))
        elif kind == SHARES:
            fields = self._secure.shares(run, round_number, asked.header)
        else:
            fields = self._secure.reveal(run, round_number, asked.header, self._folder(run))
        return Content({**fields, **self._header(run, round_number)})

    def _train(self, kind: str, asked: Content, settings: FederatedSettings) -> Content:
        run, round_number = _round_of(asked, settings)
        if self._secure is not None:
            # Without keys nothing could be sent, so no privacy is spent.
            self._secure.expect(run, round_number)
        adapter = self.warm.adapter(settings)
        # What a server sends is checked like what a bank sends: a NaN must not be trained on.
        adapter.manifest_of_all(run).check(asked.tensors)
        before, request = self._answered(run), _hash(asked)
        if round_number <= before.round_number and request != before.request:
            raise RefusalError(
                f"Round {before.round_number} is answered; round {round_number} cannot be asked again."
            )
        if request != before.request:
            before = self._trained(adapter, run, round_number, asked, before.private, request)
        header = self._header(run, round_number)
        if self._secure is None:
            return Content(header, before.update)
        vector = adapter.manifest(run, round_number).flatten(before.update)
        hidden = self._secure.hide(run, round_number, settings, vector, asked.header)
        return Content({**hidden.header, **header}, hidden.tensors)

    def _trained(
        self,
        adapter: FederatedAdapter,
        run: str,
        round_number: int,
        asked: Content,
        private: Update,
        request: str,
    ) -> Answered:
        settings = adapter.settings
        adapter.write(asked.tensors)
        adapter.write(private)
        adapter.use_round(round_number)
        plan, ledger = self._privacy(settings)
        # Without privacy the order of examples is public knowledge, so that anyone can repeat the run.
        seeded = Randomness.seeded(f"{settings.seed} {self.settings.name} {round_number}".encode())
        result = train_locally(
            adapter.model,
            self.rows,
            _local_training(settings, round_number, len(self.rows)),
            pad_id=self.warm.base.tokenizer.pad_token_id,  # pyright: ignore[reportArgumentType]
            randomness=self._randomness(run, round_number) if settings.is_private else seeded,
            plan=plan,
            ledger=ledger,
        )
        update = {name: result.update[name] for name in adapter.shared(round_number)}
        answered = Answered(round_number, request, update, adapter.read(adapter.private()))
        self._keep(run, answered)
        return answered

    def _finish(self, kind: str, asked: Content, settings: FederatedSettings) -> Content:
        run = text_of(asked.header, "run")
        adapter = self.warm.adapter(settings)
        adapter.manifest_of_all(run).check(asked.tensors)
        adapter.write(asked.tensors)
        adapter.write(self._answered(run).private)
        base = self.warm.base
        metadata = {
            "task": self.task,
            "base": base.name,
            "base_revision": base.revision,
            "quantization": base.quantization,
            "federated": {"run": run, "bank": self.settings.name, "settings": settings.record()},
            "n_examples": len(self.rows),
            "seed": settings.seed,
            "commit": source_commit(),
        }
        write_expert(adapter, self._folder(run) / EXPERT_FOLDER, metadata)
        return Content(self._header(run, settings.rounds))

    def _privacy(self, settings: FederatedSettings) -> tuple[PrivacyPlan | None, Ledger | None]:
        if not settings.is_private:
            return None, None
        if settings not in self._plans:
            plan = PrivacyPlan.solve(
                epsilon=settings.epsilon,
                delta=settings.delta,
                n_examples=len(self.rows),
                batch_size=min(settings.batch_size, len(self.rows)),
                steps=settings.rounds * settings.local_steps,
            )
            # One ledger for all runs on these records: what they spend adds up.
            path = Path(self.settings.folder) / LEDGER_FILE
            budget = (
                self.settings.max_epsilon if math.isfinite(self.settings.max_epsilon) else settings.epsilon
            )
            self._plans = {settings: (plan, Ledger.open(path, budget, settings.delta))}
        plan, ledger = self._plans[settings]
        try:
            ledger.admit(plan, settings.local_steps)
        except BudgetError:
            raise RefusalError("The bank's privacy budget is spent.") from None
        return plan, ledger

    def _header(self, run: str, round_number: int) -> dict[str, Any]:
        return {"bank": self.settings.name, "run": run, "round": round_number}

    def _folder(self, run: str) -> Path:
        # The server chose the run's name, so it must not become a path.
        return Path(self.settings.folder) / hashlib.sha256(run.encode()).hexdigest()[:32]

    def _answered(self, run: str) -> Answered:
        file = self._folder(run) / ANSWER_FILE
        if not file.is_file():
            return Answered(0, "", {}, {})
        tensors = load_file(file)
        header = json.loads(bytes(tensors.pop("header")).decode())
        parts: dict[str, dict[str, np.ndarray]] = {"update": {}, "private": {}}
        for name, values in tensors.items():
            part, _, tensor = name.partition(":")
            parts[part][tensor] = values
        return Answered(header["round"], header["request"], parts["update"], parts["private"])

    def _keep(self, run: str, answered: Answered) -> None:
        """Write the answer before it is sent, in one step: a kill leaves the one before or this one."""
        header = json.dumps({"round": answered.round_number, "request": answered.request}).encode()
        tensors = {"header": np.frombuffer(header, np.uint8)}
        tensors |= {f"update:{name}": values for name, values in answered.update.items()}
        tensors |= {f"private:{name}": values for name, values in answered.private.items()}
        self._folder(run).mkdir(parents=True, exist_ok=True)
        write_bytes(self._folder(run) / ANSWER_FILE, save(tensors))


def _settings_of(asked: Content) -> FederatedSettings:
    try:
        return FederatedSettings.from_json(text_of(asked.header, "settings"))
    except MessageError:
        raise
    except (ValueError, FinLoraError):
        raise RefusalError("The settings that the server sent make no run.") from None


def _local_training(settings: FederatedSettings, round_number: int, records: int) -> LocalTraining:
    """Return how a bank trains in a round: with Adam, or by plain steps where the server has Adam."""
    has_server_optimizer = settings.server_optimizer != "none"
    training = LocalTraining(
        steps=settings.local_steps,
        batch_size=min(settings.batch_size, records),
        learning_rate=1.0 if has_server_optimizer else settings.learning_rate,
        optimizer="sgd" if has_server_optimizer else "adam",
        clip_norm=settings.clip,
    )
    return training if has_server_optimizer else training.in_round(round_number - 1, settings.rounds)


def _round_of(asked: Content, settings: FederatedSettings) -> tuple[str, int]:
    """The run and round of a question.

    Raises:
        RefusalError: The run has no such round.
    """
    run, round_number = text_of(asked.header, "run"), number_of(asked.header, "round")
    if not 1 <= round_number <= settings.rounds:
        raise RefusalError(f"The run has no round {round_number}.")
    return run, round_number


def _hash(asked: Content) -> str:
    digest = hashlib.sha256()
    # The same adapter asked for under fresh keys is the same question: it is not trained on twice.
    for name in sorted(asked.header.keys() - set(NOT_OF_THE_ADAPTER)):
        digest.update(f"{name}={asked.header[name]!r}\n".encode())
    for name in sorted(asked.tensors):
        digest.update(f"{name} {asked.tensors[name].shape}\n".encode())
        digest.update(np.ascontiguousarray(asked.tensors[name]).tobytes())
    return digest.hexdigest()
