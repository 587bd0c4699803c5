"""Starts and stops the processes of a deployment on this machine: a SuperLink, SuperNodes, and ours beside.

Each bank's processes and files are its own; on real machines each runs its two commands, and the server its
two.
"""

import os
import secrets
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from ...atomic_write import write_json
from ...errors import FinLoraError
from ...free_port import free_port
from .bundle import CONNECTION, write_bundle, write_flower_home
from .certificates import (
    AUTHORITY,
    CERTIFICATE,
    SERVER_KEY,
    make_node_key,
    make_server_certificate,
    write_secret,
)
from .tasks import Endpoint

START_SECONDS = 120.0
"""Longest wait for a process to listen."""
HOST = "127.0.0.1"


@dataclass
class Deployment:
    """One federation on this machine."""

    folder: Path
    """Holds certificates, keys, secrets, logs and Flower's files, by party."""
    port: int = field(default_factory=free_port)
    """Where the SuperLink listens."""
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    """What was started, by name."""
    registered: set[str] = field(default_factory=set)
    """Banks whose keys the SuperLink knows."""

    @property
    def address(self) -> str:
        """host:port of the SuperLink."""
        return f"{HOST}:{self.port}"

    @property
    def authority(self) -> Path:
        """Certificate by which everybody checks the SuperLink's."""
        return self.folder / "server" / AUTHORITY

    def start_superlink(self, *, days: int = 30) -> Endpoint:
        """Make certificates and start the SuperLink, with TLS and authentication of nodes.

        Args:
            days: How long the server's certificate is valid; below 0 for one that has expired.
        """
        folder = self.folder / "server"
        make_server_certificate(folder, days=days)
        endpoint = Endpoint(self.address, _new_secret(folder), self.authority)
        write_flower_home(folder / "flower", self.address, self.authority)
        command = ["flower-superlink", "--host", HOST, "--port", str(self.port), "--isolation", "process"]
        command += ["--ssl-ca-certfile", str(self.authority), "--ssl-certfile", str(folder / CERTIFICATE)]
        command += ["--ssl-keyfile", str(folder / SERVER_KEY), "--enable-supernode-auth"]
        command += ["--disable-runtime-dependency-installation"]
        command += ["--superexec-auth-secret-file", str(endpoint.secret)]
        self.start("superlink", command, home=folder / "flower")
        _wait_for_port(self.processes["superlink"], self.port, folder)
        return endpoint

    def start_supernode(self, bank: str, *, register: bool = True, plaintext: bool = False) -> Endpoint:
        """Make a bank's key, register its public half, and start its SuperNode.

        Args:
            bank: Name of the bank.
            register: Whether the server's operator registers the key; without, the SuperLink refuses the
                node.
            plaintext: Whether the node tries to speak without TLS, which the SuperLink refuses.
        """
        folder, key = self.folder / bank, self.key(bank)
        if register and bank not in self.registered:
            # A SuperLink without a database forgets the nodes when it ends.
            self.flwr("supernode", "register", str(key.with_suffix(".pub")), CONNECTION, "--name", bank)
            self.registered.add(bank)
        port = free_port()
        endpoint = Endpoint(f"{HOST}:{port}", _new_secret(folder))
        trust = ["--insecure"] if plaintext else ["--root-certificates", str(self.authority)]
        trust += [] if plaintext else ["--auth-supernode-private-key", str(key)]
        command = ["flower-supernode", "--superlink", self.address, *trust, "--isolation", "process"]
        command += ["--host", HOST, "--port", str(port), "--max-retries", "3"]
        command += ["--superexec-auth-secret-file", str(endpoint.secret)]
        self.start(f"supernode {bank}", command, home=folder / "flower")
        return endpoint

    def key(self, bank: str) -> Path:
        """Return the file of a bank's private node key, which is made where it is missing."""
        key = self.folder / bank / "node.key"
        return key if key.is_file() else make_node_key(key).with_suffix(".key")

    def write_peers(self, banks: Iterable[str]) -> Path:
        """Write the file of all banks' public node keys, which people exchange outside of the protocol."""
        texts = {bank: self.key(bank).with_suffix(".pub").read_text(encoding="utf-8") for bank in banks}
        write_json(self.folder / "peers.json", texts)
        return self.folder / "peers.json"

    def submit(self) -> None:
        """Submit a run to the SuperLink, as its operator."""
        self.flwr("run", str(write_bundle(self.folder / "server" / "bundle")), CONNECTION)

    def flwr(self, *words: str) -> str:
        """Run one of Flower's commands as the server's operator; returns what it printed.

        Raises:
            FinLoraError: It failed.
        """
        home = self.folder / "server" / "flower"
        done = subprocess.run(
            [_script("flwr"), *words], env=_environment(home), capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise FinLoraError(f"`flwr {words[0]}` failed: {(done.stderr or done.stdout).strip()[-500:]}")
        return done.stdout

    def start(self, name: str, command: Sequence[str], *, home: Path) -> subprocess.Popen[bytes]:
        """Start a process whose output goes to a log file named after it."""
        home.mkdir(parents=True, exist_ok=True)
        log = self.log(name)
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            self.processes[name] = subprocess.Popen(
                [command[0] if Path(command[0]).is_absolute() else _script(command[0]), *command[1:]],
                env=_environment(home),
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
            )
        return self.processes[name]

    def log(self, name: str) -> Path:
        """Return the log file of a process."""
        return self.folder / "logs" / f"{name.replace(' ', '-')}.log"

    def stop(self, *names: str) -> None:
        """Stop processes, by default all, the last one started first."""
        for name in names or tuple(reversed(self.processes)):
            process = self.processes.pop(name)
            process.terminate()
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextmanager
def deployment(folder: Path) -> Iterator[Deployment]:
    """Give a deployment whose processes are stopped whatever happens."""
    held = Deployment(folder)
    try:
        yield held
    finally:
        held.stop()


def _new_secret(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    write_secret(folder / "tasks.secret", secrets.token_bytes(32))
    return folder / "tasks.secret"


def _script(name: str) -> str:
    """The command that was installed with this Python, whatever the path says."""
    script = Path(sysconfig.get_path("scripts")) / name
    if not script.is_file():
        raise FinLoraError(f"The command {name} is not installed; run `pip install finlora[federated]`.")
    return str(script)


def _environment(home: Path) -> dict[str, str]:
    scripts = str(Path(sys.executable).parent)
    return os.environ | {
        "FLWR_HOME": str(home.resolve()),
        "FLWR_TELEMETRY_ENABLED": "0",
        "PATH": os.pathsep.join([scripts, os.environ.get("PATH", "")]),
    }


def _wait_for_port(process: subprocess.Popen[bytes], port: int, folder: Path) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and process.poll() is None:
        with socket.socket() as probe:
            probe.settimeout(1.0)
            if probe.connect_ex((HOST, port)) == 0:
                return
        time.sleep(0.2)
    raise FinLoraError(f"The SuperLink did not start; its log is in {folder.parent / 'logs'}.")
