"""The socket that a server listens on: it bounds the connections that nobody has let in yet.

Whoever can reach the port opens a connection before showing a token, and each takes a file descriptor; a
process that has none left cannot write its checkpoint, which ends the run. So there are so many places before
the door, whether TLS is spoken or not. When they are taken, the one that has stood there longest makes way: a
worker stays for a moment only.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import resource
import socket
from typing import Any, Protocol

from websockets.asyncio.connection import Connection

from engram.errors import ConfigurationError, PortTakenError

FILES = 128
"""Descriptors that a process needs beside its connections: data, checkpoint, log, status port."""
FEWEST_PLACES = 16
MOST_FILES = 65_536
"""As many as a process asks for; groups of workers may grow."""
LOOKS, LOOK_SECONDS = 400, 0.005
"""How often, and after which time, it is looked whether strangers who are shown out have left."""

log = logging.getLogger(__name__)


class Closable(Protocol):
    """What an event loop serves connections with."""

    def close(self) -> None:
        """Take no connection any more."""
        ...


class Door(socket.socket):
    """A bound socket that an event loop listens on."""

    def __init__(self, family: int, places: int) -> None:
        # asyncio switches Nagle's algorithm off only where the protocol is named. With it a small message
        # waits until the other side's kernel acknowledges the one before it: up to 40 ms.
        super().__init__(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        self._places = places
        self._outside: dict[int, socket.socket] = {}
        """By descriptor, in the order in which they came."""
        self._shut = False

    def accept(self) -> tuple[socket.socket, Any]:
        """See socket.socket: raises BlockingIOError as well while somebody makes way, and once it is shut."""
        if self._shut:
            raise BlockingIOError
        if len(self._outside) >= self._places:
            self._outside = {number: one for number, one in self._outside.items() if one.fileno() == number}
        if len(self._outside) >= self._places:
            with contextlib.suppress(OSError):  # it is about to end as it is
                next(iter(self._outside.values())).shutdown(socket.SHUT_RDWR)
            raise BlockingIOError
        accepted, address = super().accept()
        number = accepted.fileno()
        self._outside.pop(number, None)  # that one has gone, and its number is free again
        self._outside[number] = accepted
        return accepted, address

    async def close_with(self, server: Closable) -> None:
        """Close the server that listens here, and see everybody leave who was not let in.

        Who has come just now is a task that has not begun: Python 3.11 leaves such a connection open and
        unread when its server closes first. Who is in the middle of a TLS handshake is known to the event
        loop alone, which must not end before.
        """
        self._shut = True
        try:
            await asyncio.sleep(0)
        finally:
            server.close()
            for one in self._outside.values():
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)
        for _ in range(LOOKS):
            if all(one.fileno() < 0 for one in self._outside.values()):
                break
            await asyncio.sleep(LOOK_SECONDS)

    def let_in(self, connection: Connection) -> None:
        """Count a connection no more: it has shown what it must."""
        raw = connection.transport.get_extra_info("socket")
        if raw is not None:
            self._outside.pop(raw.fileno(), None)


def open_door(host: str, port: int, connections: int) -> Door:
    """Return a door at `host` and `port`, for a server that lets so many connections in.

    There are as many places before it: all workers may come at once. Raises OSError.
    """
    addresses = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, _, _, _, address = min(addresses, key=lambda found: found[0] != socket.AF_INET)
    limit = _open_files(2 * connections + FILES)
    door = Door(family, max(FEWEST_PLACES, min(connections, limit - connections - FILES)))
    try:
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            door.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        door.bind(address)
        door.setblocking(False)
    except BaseException:
        door.close()
        raise
    return door


def cannot_listen(host: str, port: int, error: OSError) -> ConfigurationError:
    """Return in words why nobody can listen there."""
    if error.errno == errno.EADDRINUSE:
        return PortTakenError(
            f"port {port} of {host} is taken", remedy="end what listens there, or take another port"
        )
    return ConfigurationError(
        f"port {port} of {host} cannot be listened on: {error.strerror or error}",
        remedy="give another host or port",
    )


def _open_files(wanted: int) -> int:
    """Let this process have so many files open, and return how many it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = max(wanted, MOST_FILES)
    if soft == resource.RLIM_INFINITY or soft >= most:
        return most
    granted = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (granted, hard))
    if granted < wanted:
        log.warning("%d files may be open, %d would be better: raise `ulimit -n`", granted, wanted)
    return granted
