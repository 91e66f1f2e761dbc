"""One TCP connection of the Sedna port: a WebSocket, or a single POST to what a worker takes for its Local
Controller. Sedna's workers and their Local Controller's clients both know one address only.
"""

from __future__ import annotations

import fcntl
import http
import socket
import struct
import termios
import time
from collections.abc import Callable
from typing import Any

from websockets.asyncio.server import ServerConnection
from websockets.frames import Frame, Opcode
from websockets.http11 import Response

from engram.federation.websocket.wire import end_half_open
from engram.sedna.http import MOST_BYTES, Post, answer, read_post

POST = b"POST "
IDLE_SECONDS, AGAIN_SECONDS, PROBES = 10, 5, 3
"""The kernel asks a silent peer's kernel, which answers however long the client trains; a machine that is
gone is found in 25 s, sooner than its replacement gives up subscribing."""
CONTROL = (Opcode.PING, Opcode.PONG)

Report = Callable[[Post], Response]
"""Answers a POST; called in the event loop."""


class Connection(ServerConnection):
    """A server's connection that knows how long a message took to arrive, and that answers a POST."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._start: bytes | None = b""
        """The first bytes, until they tell a POST from a handshake."""
        self._began: float | None = None
        self._partial = False
        """Fragments of a message are in, and its last one is not."""
        self._seconds = 0.0

    @staticmethod
    def report(post: Post) -> Response:
        """Answer a POST; `connections` gives its own."""
        return answer(http.HTTPStatus.NOT_FOUND, {"detail": post.path})

    def keep_alive(self) -> None:
        """Let the kernel find a peer that is gone, instead of pings, which nobody answers while training."""
        end_half_open(self)
        raw = self.transport.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in (
            ("TCP_KEEPIDLE", IDLE_SECONDS),
            ("TCP_KEEPINTVL", AGAIN_SECONDS),
            ("TCP_KEEPCNT", PROBES),
        ):
            if hasattr(socket, name):
                raw.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)

    def seconds(self) -> float:
        """Return how long the newest message took from its first bytes to its last."""
        return self._seconds

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        if self._start is None:
            if self._began is None:
                self._began = time.monotonic()
            super().data_received(data)
            return
        self._start += data
        if self._start.startswith(POST):
            self._post(self._start)
        elif not POST.startswith(self._start[: len(POST)]):
            data, self._start = self._start, None
            super().data_received(data)

    def process_event(self, event: Any) -> None:
        """See ServerConnection."""
        if isinstance(event, Frame):
            now = time.monotonic()
            if event.opcode not in CONTROL:
                self._partial = not event.fin
                self._seconds = now - (self._began or now)
            if not self._partial:
                self._began = None
        super().process_event(event)

    def _post(self, data: bytes) -> None:
        found = read_post(data) if len(data) <= 2 * MOST_BYTES else http.HTTPStatus.REQUEST_ENTITY_TOO_LARGE
        if found is None:
            return
        response = (
            type(self).report(found) if isinstance(found, Post) else answer(found, {"detail": found.phrase})
        )
        self.transport.write(response.serialize())
        self.transport.close()


def unsent(connection: Connection) -> bool:
    """Return whether bytes are on their way that the peer's kernel has not acknowledged."""
    transport = connection.transport
    if transport.is_closing():
        return False
    if transport.get_write_buffer_size():
        return True
    raw = transport.get_extra_info("socket")
    try:
        (queued,) = struct.unpack("i", fcntl.ioctl(raw.fileno(), termios.TIOCOUTQ, bytes(4)))
    except OSError:
        return False
    return bool(queued)


def connections(report_to: Report) -> type[Connection]:
    """Return the class of a server's connections, whose POST requests `report_to` answers."""

    class Reporting(Connection):
        @staticmethod
        def report(post: Post) -> Response:
            return report_to(post)

    return Reporting
