"""`finlora serve` as a process of its own, for tests that treat it as its users do."""

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx
import psutil

from ...experts.errors import FinLoraError

HOST = "127.0.0.1"
START_SECONDS = 300.0
STOP_SECONDS = 30.0


class ServerProcess:
    """A server that runs while the context is open.

    Attributes:
        url: Where it listens.
        log: File with what it prints.
    """

    def __init__(self, command: Sequence[str], port: int, log: Path):
        """Run `command`, which listens on `port` of this machine."""
        self.command, self.url, self.log = list(command), f"http://{HOST}:{port}", log
        self.port = port
        self._file = log.open("wb")
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "ServerProcess":
        """Start it and wait until it answers.

        Raises:
            FinLoraError: If it ends or does not answer in time.
        """
        self._process = subprocess.Popen(self.command, stdout=self._file, stderr=subprocess.STDOUT)
        until = time.monotonic() + START_SECONDS
        while time.monotonic() < until:
            if self._process.poll() is not None:
                raise FinLoraError(f"The server ended with {self._process.returncode}; see {self.log}.")
            try:
                if httpx.get(f"{self.url}/health", timeout=5.0).status_code == httpx.codes.OK:
                    return self
            except httpx.HTTPError:
                time.sleep(0.2)
        self._stop()
        raise FinLoraError(f"The server did not answer within {START_SECONDS:.0f} s; see {self.log}.")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop it."""
        self._stop()

    def _stop(self) -> None:
        process = self._process
        if process is not None and process.poll() is None:
            process.terminate()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._file.close()

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._process is not None and self._process.poll() is None

    def memory(self) -> int:
        """Bytes of memory that only it has; files that are mapped into it are left out."""
        if self._process is None:
            return 0
        found = psutil.Process(self._process.pid).memory_info()
        return found.rss - found.shared

    def open_files(self) -> int:
        """Open files and connections."""
        return 0 if self._process is None else psutil.Process(self._process.pid).num_fds()

    def engine(self) -> dict[str, Any]:
        """What its engine holds now."""
        answer = httpx.get(f"{self.url}/v1/engine", timeout=60.0)
        answer.raise_for_status()
        return answer.json()


def serve_command(registry: Path, experts: Path, port: int, *, base: str = "embedded") -> list[str]:
    """The command line of a server on an unquantized base.

    Args:
        registry: The registry's folder.
        experts: Folder of experts, which are registered at the start, and from which more may be added.
        port: Where it listens.
        base: Name of the base.
    """
    command = [sys.executable, "-m", "finlora.moe.cli", "serve", "--base", base, "--quantization", "none"]
    command += ["--registry", str(registry), "--experts", str(experts), "--expert-source", str(experts)]
    return [*command, "--port", str(port)]
