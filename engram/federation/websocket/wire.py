"""What both ends of a WebSocket connection agree on, and how either of them ends one."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket

from websockets.asyncio.connection import Connection
from websockets.http11 import Request

PATH = "/v1/federation"
SUBPROTOCOL = "engram.v1"
WORKER_HEADER = "Engram-Worker"
"""Names the worker at the handshake, so that its token is checked before a connection exists."""

CLOSE_BAD_MESSAGE = 1002
CLOSE_TOO_LARGE = 1009
CLOSE_NO_HELLO = 4000
CLOSE_REPLACED = 4001
"""A newer connection of the same worker has taken over."""
CLOSE_REFUSED = 4003

LARGEST_FRAME = 1024 * 1024
"""No frame of a worker is larger: pieces and messages that need no credit are a quarter of it."""

SPARE_CONNECTIONS = 64
"""Connections beside one a worker: takeovers, and peers that have yet to say hello."""

DEAD_SECONDS = 60
"""Bytes that stay unacknowledged for so long end a half-open connection."""


def bearer(token: str) -> str:
    """Return the value of the Authorization header."""
    return f"Bearer {token}"


def token_of(authorization: str) -> str:
    """Return the token of an Authorization header; empty when it has none."""
    scheme, _, token = authorization.partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def header_of(request: Request, name: str) -> str:
    """Return a header's value; empty when it is missing, or comes more than once."""
    values = request.headers.get_all(name)
    return values[0] if len(values) == 1 else ""


def end_half_open(connection: Connection) -> None:
    """Let the kernel end a connection whose other side is gone, once there are bytes for it."""
    raw = connection.transport.get_extra_info("socket")
    option = getattr(socket, "TCP_USER_TIMEOUT", None)
    if raw is not None and option is not None:
        raw.setsockopt(socket.IPPROTO_TCP, option, DEAD_SECONDS * 1000)


def unpace_loopback(connection: Connection) -> None:
    """Let the kernel send as fast as the other side takes it where that is on this machine.

    There is no network whose rate could be guessed, but BBR, the default of many systems, guesses one and
    sends no faster: at half of what the loopback carries. Reno is in every kernel and free for everybody.
    """
    raw = connection.transport.get_extra_info("socket")
    option = getattr(socket, "TCP_CONGESTION", None)
    if raw is not None and option is not None and _is_loopback(connection.remote_address):
        with contextlib.suppress(OSError):  # a kernel that lets nobody choose
            raw.setsockopt(socket.IPPROTO_TCP, option, b"reno")


def _is_loopback(address: object) -> bool:
    try:
        return isinstance(address, tuple) and ipaddress.ip_address(address[0]).is_loopback
    except ValueError:
        return False


async def close_within(connection: Connection, seconds: float, code: int = 1000, reason: str = "") -> None:
    """Close a connection politely if the other side still reads; after `seconds` in any case.

    The library's own close waits without a bound while bytes are stuck in front of the closing frame.
    """
    try:
        async with asyncio.timeout(seconds):
            await connection.close(code, reason)
    except TimeoutError:
        connection.transport.abort()
