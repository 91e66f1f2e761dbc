"""TCP ports of this machine for servers that start a moment later, mostly in another process.

Tests run side by side, so a free port might be chosen twice before anybody listens at it. Each choice is
therefore held by a UDP socket of the same number until the process that chose it ends: that hinders no server
of TCP, but everybody else who chooses here.
"""

from __future__ import annotations

import random
import socket
from itertools import chain

FIRST, LAST = 20_000, 32_000
"""Below what the kernel gives to outgoing connections."""


def free_port() -> int:
    """Return a port of the loopback that nobody listens at, and that nobody else has chosen."""
    start = random.randrange(FIRST, LAST)
    for port in chain(range(start, LAST), range(FIRST, start)):
        if _hold(port):
            return port
    raise RuntimeError(f"all ports from {FIRST} to {LAST} of this machine are taken")


def _hold(port: int) -> bool:
    """Make `port` ours if it is free; tell whether it was."""
    with socket.socket() as server, socket.socket(type=socket.SOCK_DGRAM) as holder:
        try:
            server.bind(("127.0.0.1", port))
            holder.bind(("127.0.0.1", port))
        except OSError:
            return False
        holder.detach()  # open until this process ends, and not inherited by what it starts
        return True
