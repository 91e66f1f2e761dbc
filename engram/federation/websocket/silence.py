"""A network that swallows packets for a while, and TCP that notices its return late.

TCP waits longer and longer before it sends again what a cut has swallowed, up to a minute after one of a
minute. So a worker looks whether the other side would take a new connection while its own gets through to
nobody. One that is only slow, or whose other side is busy, acknowledges what it gets and is left alone.

Each side waits for itself: what the worker sends may get through again while what the aggregator has sent
still waits. So once a long cut is over the worker asks for an answer, and gives the connection up when it has
none at its next look.
"""

from __future__ import annotations

import asyncio
import math
import socket
import time
from collections.abc import Callable
from typing import NoReturn

from websockets.asyncio.connection import Connection

LOOK_SECONDS, QUIET_SECONDS = 0.5, 3.0
"""How often a worker looks, and after how much silence it makes a sound: without bytes on their way the
kernel notices nothing."""
REACH_SECONDS = 1.0
"""How long the other side may take for a new connection. A cut may end just after one was begun in vain; with
a look and the first backoff that is less than two seconds."""
RESENT = 3
"""Retransmissions in a row, a second and a half of them, that make a connection suspicious."""


async def watch(connection: Connection, contact: Callable[[], float]) -> None:
    """Raise TimeoutError when a cut is over for a new connection, but not yet for this one.

    `contact` returns when the other side was last heard, by time.monotonic.
    """
    pinged, cut, over = contact(), math.inf, math.inf
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        looked = time.monotonic()
        if stuck(connection):
            cut, over = min(cut, looked), math.inf
            if await reachable(connection, REACH_SECONDS) and stuck(connection):
                _give_up(connection)
        elif looked - cut < QUIET_SECONDS:
            cut = math.inf
            if looked - max(pinged, contact()) >= QUIET_SECONDS:
                pinged = looked
                await connection.ping()
        elif over == math.inf:
            over = looked
            await connection.ping()
        elif contact() >= over:
            cut = math.inf
        elif await reachable(connection, REACH_SECONDS):
            _give_up(connection)


def _give_up(connection: Connection) -> NoReturn:
    connection.transport.abort()  # a polite end would wait for an answer
    raise TimeoutError("the network is back before this connection is")


def stuck(connection: Connection) -> bool:
    """Return whether the kernel sends bytes again and again that the other side does not acknowledge."""
    raw = connection.transport.get_extra_info("socket")
    option = getattr(socket, "TCP_INFO", None)
    if raw is None or option is None:
        return False
    # struct tcp_info of Linux: state, state of congestion control, retransmissions in a row, ...
    return bool(raw.getsockopt(socket.IPPROTO_TCP, option, 3)[2] >= RESENT)


async def reachable(connection: Connection, seconds: float) -> bool:
    """Return whether the other side of a connection takes a new one within so many seconds."""
    raw = connection.transport.get_extra_info("socket")
    with socket.socket(raw.family, socket.SOCK_STREAM) as found:
        found.setblocking(False)
        try:
            async with asyncio.timeout(seconds):
                await asyncio.get_running_loop().sock_connect(found, raw.getpeername())
        except OSError:
            return False
    return True
