"""What secrecy adds to a round: seconds and bytes of masks and, where ezkl is installed, of a proof."""

import importlib.util
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ...experts.atomic_write import write_text
from ...experts.federated.partition import bank_names
from ...experts.federated.proofs.prover import Prover
from ...experts.federated.proofs.setup import make_setup
from ...experts.federated.proofs.statement import NormStatement
from ...experts.federated.proofs.verifier import verify
from ...experts.federated.quantize import quantize
from ...experts.federated.secure_bank import SecureBank
from ...experts.federated.secure_server import SecureServer
from ...experts.federated.secure_sum import Session
from ..results import json_lines

COSTS_FILE = "costs.jsonl"
MAX_NORM = 1.0
T = TypeVar("T")


def measure_costs(file: Path, *, values: int, banks: int, proof: bool = False) -> None:
    """Write the cost of each part of a round for one bank, and of the server's share.

    Args:
        file: JSON lines with `part`, `seconds`, `bytes` that the bank sends, and `values`.
        values: Values of an update.
        banks: Banks that take part.
        proof: Whether to prove as well, which takes minutes the first time.
    """
    records = _masks(values, banks)
    if proof and importlib.util.find_spec("ezkl") is not None:
        records += _proof(values)
    write_text(file, json_lines(records))


def _masks(values: int, banks: int) -> list[dict[str, Any]]:
    names = tuple(bank_names(banks))
    keys = {name: Ed25519PrivateKey.generate() for name in names}
    directory = {name: key.public_key() for name, key in keys.items()}
    session = Session("costs", 1, names, values, 2)
    server = SecureServer(session, directory)
    first, *others = (SecureBank(session, name, keys[name], directory) for name in names)
    lanes = np.ones(values, np.int32)
    seconds: dict[str, float] = dict.fromkeys(("keys and shares", "mask", "unmask"), 0.0)

    def timed(part: str, do: Callable[[], T]) -> T:
        started = time.perf_counter()
        result = do()
        seconds[part] += time.perf_counter() - started
        return result

    advertised = {first.bank: timed("keys and shares", first.advertise)}
    roster = server.roster(advertised | {bank.bank: bank.advertise() for bank in others})
    shares = {first.bank: timed("keys and shares", lambda: first.share(roster))}
    inboxes = server.route(shares | {bank.bank: bank.share(roster) for bank in others})
    masked = {first.bank: timed("mask", lambda: first.mask(lanes, inboxes[first.bank]))}
    masked |= {bank.bank: bank.mask(lanes, inboxes[bank.bank]) for bank in others}
    survivors = server.survivors(masked)
    revealed = {first.bank: timed("unmask", lambda: first.reveal(survivors))}
    started = time.perf_counter()
    total = server.total(revealed | {bank.bank: bank.reveal(survivors) for bank in others})
    removing = time.perf_counter() - started
    assert (total == banks).all()
    sizes = {
        "keys and shares": len(advertised[first.bank]) + _size(shares[first.bank].values()),
        "mask": masked[first.bank].nbytes,
        "unmask": _size(revealed[first.bank].values()),
    }
    rows = [_record(f"masks: {part}", seconds[part], sizes[part], values) for part in seconds]
    return [*rows, _record("masks: server removes them", removing, 0, values)]


def _proof(values: int) -> list[dict[str, Any]]:
    lanes = quantize(np.full(values, 0.5 * MAX_NORM / values**0.5, np.float32), max_norm=MAX_NORM)
    with TemporaryDirectory() as folder:
        setup = make_setup(Path(folder) / "setup", NormStatement.of(values, MAX_NORM))
        started = time.perf_counter()
        prover = Prover(setup, Path(folder) / "prover")
        prepared = time.perf_counter()
        proven = prover.prove(lanes)
        proved = time.perf_counter()
        verify(setup, proven.proof)
        verified = time.perf_counter()
    return [
        _record("proof: preparing, once", prepared - started, 0, values),
        _record("proof: proving", proved - prepared, len(proven.proof), values),
        _record("proof: server verifies", verified - proved, 0, values),
    ]


def _size(parts: Iterable[bytes]) -> int:
    return sum(map(len, parts))


def _record(part: str, seconds: float, size: int, values: int) -> dict[str, Any]:
    return {"part": part, "seconds": round(seconds, 5), "bytes": size, "values": values}
