"""Clients that break off: amid a request, amid an answer, or with their whole process."""

import json
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

HOST = "127.0.0.1"
_PATH = "/v1/completions"
_CHILD = """
import socket, sys, time
port, *parts = sys.stdin.buffer.read().split(b"\\0")
sockets = []
for part in parts:
    one = socket.create_connection(("127.0.0.1", int(port)))
    one.sendall(part)
    sockets.append(one)
time.sleep(600)
"""


def http_request(body: dict[str, Any], path: str = _PATH) -> bytes:
    """A whole HTTP request."""
    content = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content


def reset(connection: socket.socket) -> None:
    """Close so that the other side gets a reset, as after a crash."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def hang_up_mid_request(port: int, body: dict[str, Any], share: float) -> None:
    """Send a share of a request and break off."""
    whole = http_request(body)
    connection = socket.create_connection((HOST, port), timeout=60.0)
    connection.sendall(whole[: int(share * len(whole))])
    reset(connection)


def hang_up_mid_answer(port: int, body: dict[str, Any], seconds: float) -> None:
    """Send a request, wait a while, read what is there, and break off."""
    connection = socket.create_connection((HOST, port), timeout=60.0)
    connection.sendall(http_request(body))
    time.sleep(seconds)
    connection.setblocking(False)
    with suppress(BlockingIOError, ConnectionError):
        connection.recv(4096)
    reset(connection)


def killed_process(port: int, bodies: Sequence[dict[str, Any]], seconds: float) -> None:
    """Let a process send requests, and kill it (SIGKILL) after so many seconds."""
    child = subprocess.Popen(
        [sys.executable, "-S", "-c", _CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    sent = b"\0".join([str(port).encode(), *map(http_request, bodies)])
    with suppress(subprocess.TimeoutExpired):
        child.communicate(sent, timeout=seconds)
    child.kill()
    child.communicate()


def send_bytes(port: int, data: bytes, seconds: float) -> int | str | None:
    """Send bytes, end the sending side, and return the status of the answer.

    Returns:
        The status, None if the server closed the connection without one, or "timeout".
    """
    with socket.create_connection((HOST, port), timeout=seconds) as connection:
        try:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            answer = connection.recv(64)
        except TimeoutError:
            return "timeout"
        except OSError:
            return None
    head, _, rest = answer.partition(b" ")
    return int(rest[:3]) if head.startswith(b"HTTP/") and rest[:3].isdigit() else None
