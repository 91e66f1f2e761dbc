"""What is asked of the kernel for a connection."""

from __future__ import annotations

import asyncio
import socket
from types import SimpleNamespace
from typing import cast

import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.connection import Connection
from websockets.asyncio.server import ServerConnection, serve

from engram.federation.websocket.stream import ClientStream, Stream
from engram.federation.websocket.wire import unpace_loopback

PACED = b"paced"


class Socket:
    """Takes what it is told."""

    def __init__(self) -> None:
        self.congestion = PACED

    def setsockopt(self, level: int, option: int, value: bytes) -> None:
        assert (level, option) == (socket.IPPROTO_TCP, socket.TCP_CONGESTION)
        self.congestion = value


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        (("127.0.0.1", 7363), b"reno"),
        (("127.3.0.1", 7363), b"reno"),
        (("::1", 7363, 0, 0), b"reno"),
        (("10.0.0.7", 7363), PACED),
        (("fe80::1%eth0", 7363, 0, 3), PACED),
        (("", 0), PACED),
        ("/run/socket", PACED),
        (None, PACED),
    ],
)
def test_only_a_connection_of_the_machine_with_itself_is_sent_unpaced(
    address: object, expected: bytes
) -> None:
    raw = Socket()
    transport = SimpleNamespace(get_extra_info=lambda name: raw)
    unpace_loopback(cast(Connection, SimpleNamespace(transport=transport, remote_address=address)))
    assert raw.congestion == expected


def test_it_happens_with_the_first_large_message_and_to_a_socket_that_works_on() -> None:
    seen: list[str | bytes] = []

    def algorithm(stream: Stream) -> bytes:
        raw = stream.transport.get_extra_info("socket")
        name: bytes = raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16)
        return name.rstrip(b"\0")

    async def check() -> None:
        async def handle(connection: ServerConnection) -> None:
            async for message in connection:
                seen.append(message)

        async with serve(handle, "127.0.0.1", 0, compression=None) as server:
            port = next(iter(server.sockets)).getsockname()[1]
            async with connect(
                f"ws://127.0.0.1:{port}", create_connection=ClientStream, compression=None, proxy=None
            ) as client:
                stream = cast(ClientStream, client)
                await stream.transmit([bytes(400_000)])
                assert algorithm(stream) == b"reno"
                await stream.transmit([b"and on"])

    asyncio.run(check())
    assert seen == [bytes(400_000), b"and on"]
