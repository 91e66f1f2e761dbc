"""Ports of the loopback for servers that cannot be given port 0."""

from __future__ import annotations

import socket
import time

LISTENS_SECONDS = 60.0


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


def await_listening(port: int) -> None:
    """Wait until somebody listens on `port`. Raises ConnectionRefusedError when nobody does in time."""
    end = time.monotonic() + LISTENS_SECONDS
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except ConnectionRefusedError:
            if time.monotonic() > end:
                raise
            time.sleep(0.1)
