"""A bank's answers in a round with secure aggregation; the protocol itself is in `secure_bank.py`.

What must outlive the process is one number: the last round in which this bank revealed shares. A round
that is asked again after that would let the server subtract one sum from another and keep one bank's
update.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from ..atomic_write import write_json
from .identity import Identity
from .messages import Content, Header, MessageError
from .proofs.binding import submit
from .proofs.engine import ProofError
from .proofs.prover import Prover
from .proofs.setup import open_setup
from .proofs.statement import HIDING_LANES, NormStatement
from .quantize import quantize, require_room
from .secure_bank import SecureBank
from .secure_messages import (
    BANKS,
    MASKED,
    PROOF,
    PUBLIC_KEYS,
    SHARE_LIST,
    SIGNATURE,
    lists_of,
    names_of,
    pairs_of,
)
from .secure_sum import Session
from .settings import FederatedSettings

REVEALED_FILE = "revealed.json"
PROVING_FOLDER = "proving"


class SecureAnswers:
    """One bank's part in the sums of one run at a time."""

    def __init__(self, identity: Identity, folder: Path) -> None:
        """Begin without secrets.

        Args:
            identity: Who the bank is and whom it knows.
            folder: The bank's own; keeps proving keys between runs.
        """
        self.identity, self.folder = identity, folder
        self._current: SecureBank | None = None
        self._prover: Prover | None = None

    def keys(
        self, run: str, round_number: int, settings: FederatedSettings, values: int, state: Path
    ) -> dict[str, Any]:
        """Answer the first step with fresh keys; what came before in this round is forgotten.

        Args:
            run: Name of the run.
            round_number: Its round.
            settings: What all parties see.
            values: Length of an update of this round.
            state: The bank's folder of this run.

        Raises:
            SecureSumError: The round was revealed, or its banks are not those that this bank knows.
        """
        if round_number <= _revealed(state):
            raise MessageError("This bank has revealed its shares of this round; it cannot be asked again.")
        require_room(settings.max_norm, len(self.identity.directory))
        lanes = values + (HIDING_LANES if settings.proofs else 0)
        banks = tuple(sorted(self.identity.directory))
        session = Session(run, round_number, banks, lanes, settings.min_banks)
        self._current = SecureBank(session, self.identity.bank, self.identity.key, self.identity.directory)
        return {PUBLIC_KEYS: self._current.advertise()}

    def expect(self, run: str, round_number: int) -> None:
        """Check that this bank has keys for a round.

        Raises:
            MessageError: It has none: it was restarted, or never asked.
        """
        self._bank(run, round_number)

    def shares(self, run: str, round_number: int, header: Header) -> dict[str, Any]:
        """Answer the second step: shares of this bank's secrets, sealed for each other bank."""
        sealed = self._bank(run, round_number).share(pairs_of(header, PUBLIC_KEYS))
        return lists_of(sealed, SHARE_LIST)

    def hide(
        self,
        run: str,
        round_number: int,
        settings: FederatedSettings,
        vector: Float32[np.ndarray, " value"],
        header: Header,
    ) -> Content:
        """Answer the third step: the update as masked lanes, and its proof where the run wants one.

        Raises:
            ProofError: The setup on this bank's disk is not for updates like this one.
        """
        bank = self._bank(run, round_number)
        lanes, fields = quantize(vector, max_norm=settings.max_norm), {}
        if settings.proofs:
            prover = self._proving(len(vector), settings)
            proven = prover.prove(lanes)
            lanes = proven.lanes
            key = self.identity.key
            made = submit(prover.setup, key, run, round_number, self.identity.bank, proven.proof)
            fields = {PROOF: made.proof, SIGNATURE: made.signature}
        return Content(fields, {MASKED: bank.mask(lanes, pairs_of(header, SHARE_LIST))})

    def reveal(self, run: str, round_number: int, header: Header, state: Path) -> dict[str, Any]:
        """Answer the last step: one share of each bank, once in this round whatever happens."""
        bank = self._bank(run, round_number)
        shares = bank.reveal(names_of(header, BANKS))
        # On disk before anything is sent: after a restart the round stays revealed.
        state.mkdir(parents=True, exist_ok=True)
        write_json(state / REVEALED_FILE, {"round": round_number})
        return lists_of(shares, SHARE_LIST)

    def _bank(self, run: str, round_number: int) -> SecureBank:
        current = self._current
        if current is None or (current.session.run, current.session.round_number) != (run, round_number):
            raise MessageError("This bank has no keys in this round; it was restarted, or never asked.")
        return current

    def _proving(self, values: int, settings: FederatedSettings) -> Prover:
        if self.identity.proofs is None:
            raise ProofError("The run wants proofs, but this bank has no setup of proofs; name its folder.")
        setup = open_setup(self.identity.proofs)
        if setup.statement != NormStatement.of(values, settings.max_norm):
            raise ProofError("The bank's setup of proofs is for updates of another length or norm.")
        if self._prover is None or self._prover.setup != setup:
            self._prover = Prover(setup, self.folder / PROVING_FOLDER)
        return self._prover


def _revealed(state: Path) -> int:
    file = state / REVEALED_FILE
    return int(json.loads(file.read_text(encoding="utf-8"))["round"]) if file.is_file() else 0
