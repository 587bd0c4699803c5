"""The server's questions in a round with secure aggregation; the protocol itself is in `secure_server.py`.

Each step goes on with the banks that answered the one before. A bank whose proof does not hold is left
out like one
that dropped out: the others reveal the key of its masks, its lanes are never opened.
"""

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import FinLoraError
from .exchange import Exchange
from .manifest import Manifest, Update
from .messages import TRAIN, Content, Header, MessageError
from .proofs.binding import Submission, check_submission, check_sum
from .proofs.engine import ProofError
from .proofs.setup import SETUP_FILE, ProofSetup, make_setup, open_setup
from .proofs.statement import HIDING_LANES, NormStatement
from .quantize import mean_of, require_room
from .secure_messages import (
    BANKS,
    KEYS,
    MASKED,
    PROOF,
    PUBLIC_KEYS,
    REVEAL,
    SHARE_LIST,
    SHARES,
    SIGNATURE,
    bytes_of,
    lists_of,
    pairs_of,
)
from .secure_server import SecureServer
from .secure_sum import Session
from .settings import FederatedSettings
from .signing import PublicKey, load_directory

STEP_SECONDS = 60.0
"""Longest wait in the steps in which banks do not train."""


@dataclass(frozen=True)
class SecureMean:
    """What a round gives the server."""

    update: Update
    """Mean over the banks, within half a lane."""
    banks: list[str]
    """The banks in it."""
    bytes_up: int
    """What they sent in all steps, without Flower's own."""


def open_secure_rounds(
    exchange: Exchange,
    settings: FederatedSettings,
    manifest: Manifest,
    *,
    peers: Path | None,
    proofs: Path | None,
    srs: Path | None,
) -> "SecureRounds":
    """Return the secure sums of a run, and publish the setup of its proofs where that is not done yet.

    Args:
        exchange: How to ask the banks.
        settings: What all parties see.
        manifest: What an update looks like.
        peers: JSON file with every bank's public node key.
        proofs: Folder of the setup of proofs; made where it is missing.
        srs: Reference string of a public ceremony for it; None makes one that is for tests only.

    Raises:
        FinLoraError: A file is missing, or the settings make no sums.
    """
    if peers is None:
        raise FinLoraError("Secure aggregation needs the file of all banks' public keys; name it as peers.")
    if not settings.proofs:
        return SecureRounds(exchange, settings, load_directory(peers), None)
    if proofs is None:
        raise FinLoraError("Proofs need the folder in which their setup is published; name it as proofs.")
    if not (proofs / SETUP_FILE).is_file():
        make_setup(proofs, NormStatement.of(manifest.size, settings.max_norm), srs=srs)
    return SecureRounds(exchange, settings, load_directory(peers), open_setup(proofs))


class SecureRounds:
    """The secure sums of one run, as its server sees them."""

    def __init__(
        self,
        exchange: Exchange,
        settings: FederatedSettings,
        directory: Mapping[str, PublicKey],
        setup: ProofSetup | None,
    ) -> None:
        """Check that the run's sums can be made.

        Args:
            exchange: How to ask the banks; its log gets the cause wherever one is left out.
            settings: What all parties see.
            directory: Every bank's public node key.
            setup: The published setup of proofs, where the run wants them.

        Raises:
            FinLoraError: Sums could wrap around.
        """
        require_room(settings.max_norm, len(directory))
        self.exchange, self.settings, self.directory, self.setup = exchange, settings, directory, setup

    def run(
        self, header: Header, tensors: Update, manifest: Manifest, *, round_number: int, asked: Iterable[str]
    ) -> SecureMean:
        """Have the banks train, and return the mean of their updates.

        Args:
            header: What every question says.
            tensors: The global adapter.
            manifest: What an update of this round looks like.
            round_number: The round.
            asked: Banks to begin with.

        Raises:
            SecureSumError: Too few banks went all the way.
            ProofError: The sum is not that of the updates which the banks proved, or the setup of proofs
                is for other updates.
        """
        lanes = manifest.size + (HIDING_LANES if self.setup else 0)
        banks = tuple(sorted(self.directory))
        session = Session(self.exchange.run, round_number, banks, lanes, self.settings.min_banks)
        if self.setup and self.setup.statement != NormStatement.of(manifest.size, self.settings.max_norm):
            raise ProofError("The setup of proofs is for updates of another length or norm.")
        one = _Round(self, SecureServer(session, self.directory), header, round_number)
        try:
            one.ask_shares(asked)
            one.ask_updates(tensors)
            total = one.ask_reveals()
        finally:
            for bank, cause in one.server.refused.items():
                self.exchange.log(round_number, bank, cause)
        if self.setup:
            check_sum(self.setup, {bank: one.commitments[bank] for bank in one.survivors}, total)
        mean = mean_of(total[: manifest.size], len(one.survivors))
        return SecureMean(manifest.unflatten(mean), one.survivors, one.bytes_up)


class _Round:
    """One round in progress."""

    def __init__(self, rounds: SecureRounds, server: SecureServer, header: Header, round_number: int) -> None:
        self.rounds, self.server, self.header, self.round_number = rounds, server, header, round_number
        self.bytes_up = 0
        self.inboxes: dict[str, dict[str, bytes]] = {}
        self.commitments: dict[str, bytes] = {}
        self.survivors: list[str] = []

    def ask_shares(self, asked: Iterable[str]) -> None:
        """Collect signed keys, then sealed shares."""
        advertised = {}
        for bank, content in self._ask(KEYS, {bank: {} for bank in asked}).items():
            with self._refusing(bank):
                advertised[bank] = bytes_of(content.header, PUBLIC_KEYS)
        roster = self.server.roster(advertised)
        sealed = {}
        for bank, content in self._ask(SHARES, dict.fromkeys(roster, lists_of(roster, PUBLIC_KEYS))).items():
            with self._refusing(bank):
                sealed[bank] = pairs_of(content.header, SHARE_LIST)
        self.inboxes = self.server.route(sealed)

    def ask_updates(self, tensors: Update) -> None:
        """Have the banks train; keep the masked lanes whose proof holds."""
        questions = {bank: lists_of(inbox, SHARE_LIST) for bank, inbox in self.inboxes.items()}
        masked = {}
        for bank, content in self._ask(TRAIN, questions, tensors).items():
            with self._refusing(bank):
                if self.rounds.setup:
                    self.commitments[bank] = self._checked(bank, content.header, self.rounds.setup)
                masked[bank] = content.tensors.get(MASKED, np.zeros(0, np.int32))
        self.survivors = self.server.survivors(masked)

    def ask_reveals(self) -> np.ndarray:
        """Collect shares and return the sum."""
        revealed = {}
        questions = {bank: {BANKS: self.survivors} for bank in self.survivors}
        for bank, content in self._ask(REVEAL, questions).items():
            with self._refusing(bank):
                revealed[bank] = pairs_of(content.header, SHARE_LIST)
        return self.server.total(revealed)

    def _checked(self, bank: str, header: Header, setup: ProofSetup) -> bytes:
        submission = Submission(bytes_of(header, PROOF), bytes_of(header, SIGNATURE))
        key, run = self.rounds.directory[bank], self.rounds.exchange.run
        return check_submission(setup, key, run, self.round_number, bank, submission)

    @contextlib.contextmanager
    def _refusing(self, bank: str) -> Iterator[None]:
        """Leave out a bank whose answer cannot be used."""
        try:
            yield
        except (MessageError, ProofError) as error:
            self.server.refused[bank] = str(error)

    def _ask(
        self, kind: str, questions: Mapping[str, Mapping[str, Any]], tensors: Update | None = None
    ) -> dict[str, Content]:
        timeout = self.rounds.settings.timeout
        answers = self.rounds.exchange.ask(
            kind,
            {bank: Content({**self.header, **fields}, tensors or {}) for bank, fields in questions.items()},
            round_number=self.round_number,
            timeout=timeout if kind == TRAIN else min(timeout, STEP_SECONDS),
        )
        for content in answers.values():
            self.bytes_up += sum(values.nbytes for values in content.tensors.values())
            for value in content.header.values():
                self.bytes_up += sum(map(len, value)) if isinstance(value, list) else 0
                self.bytes_up += len(value) if isinstance(value, bytes) else 0
        return answers
