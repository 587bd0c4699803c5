"""A whole federation on this machine: one server and some banks as processes of their own, over TLS."""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ...base_model import load_config
from ...errors import FinLoraError
from ...tasks.examples import write_examples
from ...tasks.task import Example
from ..settings import BankSettings, FederatedSettings
from .parties import BankFile, ServerFile
from .processes import Deployment, deployment

Say = Callable[[str], None]


def deploy_example(
    folder: Path,
    settings: FederatedSettings,
    parts: Mapping[str, Sequence[Example]],
    *,
    task: str,
    base: str,
    quantization: str,
    public_examples: Sequence[Example] = (),
    say: Say = print,
) -> Path:
    """Start server and banks, train, stop them, and return the expert's folder.

    The same call goes on after an interruption, from the last round that was over.

    Args:
        folder: Gets a folder for each party: certificates, keys, records, logs, ledger; `expert` is the
            result.
        settings: What all parties see; `banks` must be the number of parts.
        parts: Bank -> its records, written into its own folder.
        task: What the expert is for.
        base: Base of all parties.
        quantization: How it is stored.
        public_examples: By which the server judges candidates.
        say: Gets a line at each step.

    Raises:
        FinLoraError: A process ended early, or the run cannot be finished.
    """
    load_config(base)
    with deployment(folder) as held:
        say("server: makes certificates, starts the SuperLink with TLS and authentication of nodes")
        server = held.start_superlink()
        peers = str(held.write_peers(parts)) if settings.secure_aggregation else ""
        proofs = str(folder / "server" / "proofs") if settings.proofs else ""
        for bank, examples in parts.items():
            say(f"{bank}: makes its key, which the server registers; starts its SuperNode and its process")
            key = str(held.key(bank)) if peers else ""
            memory = str(folder / bank / "memory")
            own = BankSettings(name=bank, folder=memory, key=key, peers=peers, proofs=proofs)
            file = bank_file(held, own, examples, task=task, base=base, quantization=quantization)
            held.start(bank, ["finlora", "federate", "bank", str(file)], home=folder / bank / "flower")
        file = ServerFile(
            settings=settings,
            out=str(folder / "expert"),
            task=task,
            base=base,
            quantization=quantization,
            superlink=server.address,
            authority=str(held.authority),
            secret=str(server.secret),
            public_examples=_public(folder, public_examples),
            peers=peers,
            proofs=proofs,
        ).write(folder / "server" / "server.json")
        held.submit()
        say(f"server: trains {settings.rounds} rounds; logs are in {folder / 'logs'}")
        held.start("server", ["finlora", "federate", "server", str(file)], home=folder / "server" / "flower")
        wait_for_server(held)
    return folder / "expert"


def bank_file(
    held: Deployment,
    own: BankSettings,
    examples: Sequence[Example],
    *,
    task: str,
    base: str,
    quantization: str,
) -> Path:
    """Start a bank's SuperNode, and write its records and its process' file into its own folder."""
    folder = held.folder / own.name
    node = held.start_supernode(own.name)
    write_examples(folder / "records.jsonl", examples)
    return BankFile(
        bank=own,
        examples=str(folder / "records.jsonl"),
        task=task,
        base=base,
        quantization=quantization,
        supernode=node.address,
        secret=str(node.secret),
    ).write(folder / "bank.json")


def wait_for_server(held: Deployment) -> None:
    """Wait until the server's process is done.

    Raises:
        FinLoraError: It failed, or another process ended before it.
    """
    server = held.processes["server"]
    while server.poll() is None:
        ended = [name for name, one in held.processes.items() if one is not server and one.poll() is not None]
        if ended:
            raise FinLoraError(f"The process {ended[0]} ended early; its log {held.log(ended[0])} says why.")
        time.sleep(0.5)
    if server.returncode:
        last = held.log("server").read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
        raise FinLoraError(f"The server failed: {''.join(last).removeprefix('finlora: ')}")


def _public(folder: Path, examples: Sequence[Example]) -> str:
    if not examples:
        return ""
    write_examples(folder / "server" / "public.jsonl", examples)
    return str(folder / "server" / "public.jsonl")
