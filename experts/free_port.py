"""A port of this machine that is free to listen at."""

import socket


def free_port(host: str = "127.0.0.1") -> int:
    """Return a port that nobody listens at now.

    Args:
        host: Address that will be listened at.
    """
    with socket.socket() as probe:
        probe.bind((host, 0))
        return probe.getsockname()[1]
