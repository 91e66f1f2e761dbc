"""The port's own kind of connection: what it asks of the kernel, and how it times a message."""

from __future__ import annotations

import asyncio
import http
import socket
import time
from collections.abc import AsyncIterator

from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve

from engram.sedna.connection import Connection, connections, unsent
from engram.sedna.http import answer


def test_the_kernel_watches_and_messages_are_timed() -> None:
    options: list[int] = []
    seconds: list[float] = []
    waiting: list[bool] = []

    async def handle(made: ServerConnection) -> None:
        assert isinstance(made, Connection)
        made.keep_alive()
        raw = made.transport.get_extra_info("socket")
        options.append(raw.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))
        options.append(raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE))
        for _ in range(2):
            await made.recv()
            seconds.append(made.seconds())
        await made.send("x" * 100_000)
        await made.recv()
        waiting.append(unsent(made))

    async def talk() -> tuple[float, float]:
        """Return how long the client waited before the second message, and how long that took at least."""
        gap = 0.0
        factory = connections(lambda post: answer(http.HTTPStatus.OK, {}))
        async with serve(handle, "127.0.0.1", 0, create_connection=factory) as server:
            port = next(iter(server.sockets)).getsockname()[1]
            async with connect(f"ws://127.0.0.1:{port}/") as client:
                before = time.monotonic()
                await client.send("short")

                async def pieces() -> AsyncIterator[str]:
                    nonlocal gap
                    yield "first"
                    await (await client.ping())
                    started = time.monotonic()
                    await (await client.ping())
                    gap = time.monotonic() - started
                    yield "last"

                # Answered pings between two messages are part of neither.
                for _ in range(20):
                    await (await client.ping())
                idle = time.monotonic() - before
                await client.send(pieces())
                assert len(await client.recv()) == 100_000
                await client.send("read")
                await client.wait_closed()
        return idle, gap

    idle, gap = asyncio.run(talk())
    assert options == [1, 10]
    short, long = seconds
    assert gap <= long
    assert short < idle
    assert waiting == [False]
