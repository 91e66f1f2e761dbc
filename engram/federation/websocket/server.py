"""The aggregator's end of the WebSocket transport: listens, ticks, and waits for the end."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import Any

from websockets.asyncio.server import Server as WebSocketServer
from websockets.asyncio.server import ServerConnection
from websockets.asyncio.server import serve as listen
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from engram.errors import FederationError
from engram.federation.aggregator import Aggregator
from engram.federation.clock import Clock
from engram.federation.outcome import Outcome
from engram.federation.websocket.door import Door, cannot_listen, open_door
from engram.federation.websocket.hub import CLOSE_SECONDS, Hub
from engram.federation.websocket.memory import keep_freed_memory
from engram.federation.websocket.stream import WRITE_LIMIT, ServerStream
from engram.federation.websocket.wire import LARGEST_FRAME, SPARE_CONNECTIONS, SUBPROTOCOL

FRAMES_AHEAD = 2
"""Frames of a connection that are read before the loop has taken them."""
REASSURE_SECONDS = 5.0
"""How often workers that are not read get a sign of life; they give up after a minute without."""


async def serve(
    aggregator: Aggregator,
    *,
    host: str,
    port: int,
    authenticate: Callable[[str, str], bool],
    stop: asyncio.Event,
    listening: Callable[[int], None],
    clock: Callable[[], float] | None = None,
    tls: ssl.SSLContext | None = None,
) -> Outcome:
    """Run the job over WebSockets until it ends or `stop` is set (then suspended, with a checkpoint).

    Workers of a suspended run are only disconnected: they try again until a new aggregator is there.
    `port` 0 takes a free one; `listening` is told which, once connections are accepted. `authenticate` is
    asked (worker, token) at every handshake. `clock` returns seconds that never go back. Raises
    PortTakenError or another ConfigurationError when the port cannot be had; what goes wrong later is an
    Outcome, except for errors that are not engram's own, which are raised at the end.
    """
    keep_freed_memory()
    hub = Hub(aggregator, authenticate, clock or Clock())
    try:
        server, door = await _listen(hub, host, port, tls)
        try:
            listening(server.sockets[0].getsockname()[1])
            await _run(hub, stop)
            if aggregator.outcome is None or aggregator.outcome.reason != "suspended":
                await hub.drain()
        finally:
            await door.close_with(server)
            try:
                async with asyncio.timeout(CLOSE_SECONDS):
                    await server.wait_closed()
            except TimeoutError:
                hub.abort()
                await server.wait_closed()
    finally:
        hub.close()
    if hub.crash is not None:
        raise hub.crash
    if aggregator.outcome is None:
        raise FederationError("the server ended before the run")
    return aggregator.outcome


async def _run(hub: Hub, stop: asyncio.Event) -> None:
    """Tick until the run is over, or suspend it when asked to."""
    stopping = asyncio.create_task(stop.wait())
    over = asyncio.create_task(hub.over.wait())
    reassuring = asyncio.create_task(_reassure(hub))
    try:
        while not hub.over.is_set():
            if stop.is_set():
                await hub.suspend()
            else:
                await hub.tick()
                await asyncio.wait(
                    {stopping, over},
                    timeout=hub.aggregator.settings.tick_seconds,
                    return_when=asyncio.FIRST_COMPLETED,
                )
    finally:
        for task in (stopping, over, reassuring):
            task.cancel()


async def _reassure(hub: Hub) -> None:
    while True:
        await asyncio.sleep(REASSURE_SECONDS)
        hub.reassure()


async def _listen(hub: Hub, host: str, port: int, tls: ssl.SSLContext | None) -> tuple[WebSocketServer, Door]:
    settings = hub.aggregator.settings

    def admit(connection: ServerConnection, request: Request) -> Response | None:
        response = hub.admit(connection, request)
        if response is None:
            door.let_in(connection)
        return response

    secure: dict[str, Any] = {}
    if tls is not None:
        secure = {"ssl": tls, "ssl_handshake_timeout": settings.hello_seconds}
    try:
        door = open_door(host, port, len(settings.workers) + SPARE_CONNECTIONS)
        server = await listen(
            hub.handle,
            sock=door,
            create_connection=ServerStream,
            process_request=admit,
            subprotocols=[Subprotocol(SUBPROTOCOL)],
            compression=None,
            # A step that holds the interpreter's lock would miss pings; any byte counts as life instead.
            ping_interval=None,
            open_timeout=settings.hello_seconds,
            close_timeout=CLOSE_SECONDS,
            max_size=min(LARGEST_FRAME, hub.aggregator.message_limit),
            max_queue=FRAMES_AHEAD,
            write_limit=WRITE_LIMIT,
            **secure,
        )
    except OSError as error:
        raise cannot_listen(host, port, error) from error
    return server, door
