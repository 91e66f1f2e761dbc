"""The socket side of the dialect: a WebSocket server for Sedna's clients on the port that they dial.

A client blocks while it trains: it reads nothing and answers no ping, so none is sent; the kernel's keepalive
finds a machine that is gone. Everything that touches the dialect runs in one thread, in the order of arrival.
"""

from __future__ import annotations

import asyncio
import contextlib
import http
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from websockets.asyncio.server import Server as WebSocketServer
from websockets.asyncio.server import ServerConnection
from websockets.asyncio.server import serve as listen
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from engram.errors import EngramError, FederationError
from engram.federation.clock import Clock
from engram.federation.outcome import Outcome
from engram.federation.websocket.door import Door, cannot_listen, open_door
from engram.federation.websocket.wire import (
    CLOSE_NO_HELLO,
    CLOSE_TOO_LARGE,
    SPARE_CONNECTIONS,
    WORKER_HEADER,
    close_within,
    header_of,
    token_of,
)
from engram.sedna.client_state import Client
from engram.sedna.connection import Connection, connections, unsent
from engram.sedna.deflate import SharedDeflateFactory
from engram.sedna.dialect import Close, Dialect, Effect
from engram.sedna.http import Post, answer, clients_response, forbidden, paths_of, read_info, unauthorised
from engram.sedna.outbox import Outbox
from engram.sedna.wire import REASON_BYTES, upload_limit

CLOSE_SECONDS = 5.0
"""How long a closing handshake may take: a client that trains does not answer it."""
FAREWELL_SECONDS = 60.0
"""How long the server waits at the end until every client has the last broadcast."""
LOOK_SECONDS = 0.05
RESTARTING = 1012

Result = TypeVar("Result")
Step = Callable[[], list[Effect]]
log = logging.getLogger(__name__)


class _Hub:
    """The server's state. Methods named `*_step` run in the dialect's thread, all others in the loop."""

    def __init__(
        self, dialect: Dialect, authenticate: Callable[[str, str], bool], clock: Callable[[], float]
    ) -> None:
        self.dialect = dialect
        self.over = asyncio.Event()
        self.crash: BaseException | None = None
        self.paths = paths_of(dialect.aggregator.settings.aggregation.name)
        self._authenticate, self._clock = authenticate, clock
        self._loop = asyncio.get_running_loop()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="aggregator")
        self._boxes: dict[Client, Outbox] = {}
        self._sockets: dict[Client, Connection] = {}
        self._left = asyncio.Event()

    # The handshake and the life of a connection.

    def admit(self, connection: ServerConnection, request: Request) -> Response | None:
        """Answer a handshake that is not to become a connection; None lets it through."""
        if not self.paths(request.path):
            return forbidden()
        if "Upgrade" not in request.headers:
            return clients_response(self.dialect.subscribed)
        shown = "Authorization" in request.headers
        token = token_of(header_of(request, "Authorization"))
        if shown and not self._authenticate(header_of(request, WORKER_HEADER), token):
            self._refused("wrong token")
            return unauthorised()
        if len(self._sockets) >= len(self.dialect.aggregator.settings.workers) + SPARE_CONNECTIONS:
            self._refused("too many connections")
            return forbidden("too many connections")
        return None

    def _refused(self, why: str) -> None:
        log.warning("a connection was refused: %s", why)
        self._thread.submit(self.dialect.aggregator.refused, "", "unauthorised", why)

    async def handle(self, socket: ServerConnection) -> None:
        """Serve one connection until it ends."""
        if not isinstance(socket, Connection):
            raise TypeError("the server makes connections of its own kind")
        request = socket.request
        known = request is not None and "Authorization" in request.headers
        client = Client(trusted=header_of(request, WORKER_HEADER) if request is not None and known else "")
        box = self._boxes[client] = Outbox()
        self._sockets[client] = socket
        socket.keep_alive()
        sender = asyncio.create_task(self._send(client, socket, box))
        try:
            await self._converse(client, socket)
        except ConnectionClosed as error:
            if error.sent is not None and error.sent.code == CLOSE_TOO_LARGE and not error.rcvd_then_sent:
                log.warning("%s sent a message that is too large", client.id or "a client")
                await self._in_thread(partial(self.dialect.too_large, client, error.sent.reason))
        finally:
            sender.cancel()
            await self.step(lambda: self.dialect.gone(client, self._clock()))
            del self._boxes[client], self._sockets[client]
            self._left.set()

    async def _converse(self, client: Client, socket: Connection) -> None:
        try:
            async with asyncio.timeout(self.dialect.aggregator.settings.hello_seconds):
                await self._message(client, socket)
        except TimeoutError:
            log.warning("a client has not subscribed in time")
            await self._in_thread(
                lambda: self.dialect.aggregator.malformed("", "protocol", "never subscribed")
            )
            await close_within(socket, CLOSE_SECONDS, CLOSE_NO_HELLO, "no subscribe in time")
            return
        while True:
            await self._message(client, socket)

    async def _message(self, client: Client, socket: Connection) -> None:
        text = await socket.recv()
        seconds = socket.seconds()
        await self.step(lambda: self.dialect.message(client, text, seconds, self._clock()))

    async def _send(self, client: Client, socket: Connection, box: Outbox) -> None:
        with contextlib.suppress(ConnectionClosed):
            while True:
                out = await box.get()
                if isinstance(out, Close):
                    log.warning("%s is disconnected: %s", client.id or "a client", out.reason)
                    await close_within(socket, CLOSE_SECONDS, out.code, _fitting(out.reason))
                    return
                await socket.send(out)
                box.sent()

    def report(self, post: Post) -> Response:
        """Answer what a worker tells its Local Controller: it becomes the worker's state and loss."""
        info = read_info(post)
        if isinstance(info, http.HTTPStatus):
            return answer(info, {"detail": info.phrase})
        self._thread.submit(self.dialect.report, info.worker, info.beat, self._clock())
        return answer(http.HTTPStatus.OK, {})

    # Steps in the dialect's thread.

    async def _in_thread(self, work: Callable[[], Result]) -> Result:
        return await self._loop.run_in_executor(self._thread, work)

    async def step(self, step: Step) -> None:
        """Run a step and send what it returns; an error in it ends the run, not us."""
        try:
            await self._in_thread(lambda: self._post_step(step))
        except EngramError as error:
            await self._fail(error)
        except Exception as error:  # a rule or learner of the user's own may raise anything
            self.crash = error
            await self._fail(FederationError(f"{type(error).__name__}: {error}"))
        if self.dialect.aggregator.outcome is not None or self.crash is not None:
            self.over.set()

    async def _fail(self, error: EngramError) -> None:
        await self._in_thread(lambda: self._post_step(lambda: self.dialect.fail(error, self._clock())))

    def _post_step(self, step: Step) -> None:
        effects = step()
        self.dialect.aggregator.begin(self._clock())
        self._loop.call_soon_threadsafe(self._post, effects)

    def _post(self, effects: list[Effect]) -> None:
        for client, out in effects:
            if client in self._boxes:
                self._boxes[client].put(out)

    # What `serve` does.

    async def tick(self) -> None:
        """Let time pass."""
        await self.step(lambda: self.dialect.tick(self._clock()))

    async def suspend(self) -> None:
        """Stop with everything durable; clients that come again find the next aggregator."""
        await self.step(lambda: self.dialect.suspend(self._clock()))

    async def drain(self) -> None:
        """Wait until every client has the end of the run, but not for ever."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FAREWELL_SECONDS):
                while not all(self._told(client) for client in tuple(self._sockets)):
                    # Nothing says when a peer's kernel has acknowledged the last byte.
                    self._left.clear()
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(self._left.wait(), LOOK_SECONDS)

    async def linger(self) -> None:
        """Wait for those who have the end to leave: they still report it to their Local Controller, us."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.dialect.aggregator.settings.linger_seconds):
                while self._sockets:
                    self._left.clear()
                    await self._left.wait()

    def _told(self, client: Client) -> bool:
        """Return whether a client needs us no more: its kernel has everything, and it reads next."""
        done = client.waits or not client.id
        return done and self._boxes[client].empty and not unsent(self._sockets[client])

    async def part(self, code: int, reason: str) -> None:
        """End all connections."""
        closing = [close_within(socket, CLOSE_SECONDS, code, reason) for socket in self._sockets.values()]
        await asyncio.gather(*closing)

    def close(self) -> None:
        """Let the dialect's thread end."""
        self._thread.shutdown(wait=True)


def _fitting(reason: str) -> str:
    return reason.encode()[:REASON_BYTES].decode(errors="ignore")


async def serve(
    dialect: Dialect,
    *,
    host: str,
    port: int,
    authenticate: Callable[[str, str], bool],
    stop: asyncio.Event,
    listening: Callable[[int], None],
    clock: Callable[[], float] | None = None,
) -> Outcome:
    """Run the job for Sedna's clients until it ends or `stop` is set (then suspended, with a checkpoint).

    As `engram.federation.websocket.server.serve`, whose arguments these are; a client needs no token, and one
    that brings a valid one replaces an older connection of the same worker.
    """
    hub = _Hub(dialect, authenticate, clock or Clock())
    try:
        server, door = await _listen(hub, host, port)
        try:
            listening(server.sockets[0].getsockname()[1])
            await _run(hub, stop)
            outcome = dialect.aggregator.outcome
            if outcome is not None and outcome.reason == "suspended":
                await hub.part(RESTARTING, "the aggregator restarts")
            else:
                await hub.drain()
                await hub.linger()
                await hub.part(1000, "the run is over")
        finally:
            await door.close_with(server)
            await server.wait_closed()
    finally:
        hub.close()
    if hub.crash is not None:
        raise hub.crash
    if dialect.aggregator.outcome is None:
        raise FederationError("the server ended before the run")
    return dialect.aggregator.outcome


async def _run(hub: _Hub, stop: asyncio.Event) -> None:
    """Tick until the run is over, or suspend it when asked to."""
    waits = {asyncio.create_task(stop.wait()), asyncio.create_task(hub.over.wait())}
    seconds = hub.dialect.aggregator.settings.tick_seconds
    try:
        while not hub.over.is_set():
            if stop.is_set():
                await hub.suspend()
            else:
                await hub.tick()
                await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waits:
            task.cancel()


async def _listen(hub: _Hub, host: str, port: int) -> tuple[WebSocketServer, Door]:
    aggregator = hub.dialect.aggregator

    def admit(connection: ServerConnection, request: Request) -> Response | None:
        response = hub.admit(connection, request)
        if response is None:
            door.let_in(connection)
        return response

    try:
        door = open_door(host, port, len(aggregator.settings.workers) + SPARE_CONNECTIONS)
        server = await listen(
            hub.handle,
            sock=door,
            process_request=admit,
            create_connection=connections(hub.report),
            compression=None,
            extensions=[SharedDeflateFactory()],
            ping_interval=None,
            open_timeout=aggregator.settings.hello_seconds,
            close_timeout=CLOSE_SECONDS,
            max_size=upload_limit(aggregator.weights),
        )
    except OSError as error:
        raise cannot_listen(host, port, error) from error
    return server, door
