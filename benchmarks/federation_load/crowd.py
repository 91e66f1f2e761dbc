"""Many workers in one process, each with a connection of its own, that send the weights back as they came.

    python -m benchmarks.federation_load.crowd PORT FIRST COUNT

Prints how long all of them took to join, as JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import cast

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from benchmarks.federation_load.roles import SAMPLES
from benchmarks.federation_load.server import TOKEN, names_of
from benchmarks.federation_load.usage import peak_mb
from engram.federation.codec import DOWN, Decoder
from engram.federation.messages import (
    Consolidate,
    Consolidated,
    Credit,
    Down,
    Hello,
    NoCredit,
    Train,
    Update,
    Welcome,
)
from engram.federation.versions import PROTOCOL
from engram.federation.websocket.memory import keep_freed_memory
from engram.federation.websocket.stream import WRITE_LIMIT, ClientStream
from engram.federation.websocket.uplink import Uplink
from engram.federation.websocket.wire import PATH, SUBPROTOCOL, WORKER_HEADER, bearer

TOGETHER = 50
"""Handshakes of a process that are under way at once."""


async def work(port: int, worker: str, gate: asyncio.Semaphore, joined: list[float]) -> None:
    """Be one worker, to the end of the run."""
    async with gate:
        connection = await connect(
            f"ws://127.0.0.1:{port}{PATH}",
            create_connection=ClientStream,
            additional_headers={"Authorization": bearer(TOKEN), WORKER_HEADER: worker},
            subprotocols=[Subprotocol(SUBPROTOCOL)],
            compression=None,
            ping_interval=None,
            max_size=None,
            write_limit=WRITE_LIMIT,
            proxy=None,
        )
        socket = cast(ClientStream, connection)
        uplink = Uplink()
        uplink.put(Hello(worker, 0, PROTOCOL, "benchmark", "none", SAMPLES))
        sender = asyncio.create_task(send(socket, uplink))
        decoder = Decoder[Down](DOWN)
        welcome = decoder.decode(await socket.receive())
    if isinstance(welcome, Welcome):
        uplink.whole_bytes = welcome.whole_bytes
    joined.append(time.perf_counter())
    try:
        while True:
            match decoder.decode(await socket.receive()):
                case Train() as order:
                    uplink.put(Update(order.task, order.round, SAMPLES, order.weights))
                case Consolidate() as order:
                    uplink.put(Consolidated(order.task, SAMPLES))
                case Credit() as credit:
                    uplink.credit(credit)
                case NoCredit() as none:
                    uplink.no_credit(none)
    except ConnectionClosed:
        sender.cancel()


async def send(socket: ClientStream, uplink: Uplink) -> None:
    """Send what there is to send."""
    while (item := await uplink.get()) is not None:
        await socket.transmit(item)


async def crowd(port: int, names: tuple[str, ...]) -> float:
    """Be so many workers; return the seconds until the last one was welcome."""
    gate, joined, start = asyncio.Semaphore(TOGETHER), [0.0], time.perf_counter()
    await asyncio.gather(*(work(port, name, gate, joined) for name in names))
    return max(joined) - start


def main(arguments: list[str]) -> None:
    """Take part as the command line says."""
    port, first, count = (int(text) for text in arguments)
    keep_freed_memory()
    seconds = asyncio.run(crowd(port, names_of(first + count)[first:]))
    print(json.dumps({"reason": "complete", "join_seconds": seconds, "bytes": [], "peak_mb": peak_mb()}))


if __name__ == "__main__":
    main(sys.argv[1:])
