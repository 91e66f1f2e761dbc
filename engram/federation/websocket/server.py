"""The aggregator's end of the WebSocket transport.

The event loop encodes and moves bytes. Everything that touches the aggregator (decoding, validation,
aggregation, evaluation, checkpoints) runs in one thread, in the order of arrival, so that the aggregator
needs no lock and the loop stays alive however long an evaluation takes. A connection reads its next message
only when the one before is dealt with; that is where a limit on what is under way attaches.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import http
import logging
import ssl
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from websockets.asyncio.server import Server as WebSocketServer
from websockets.asyncio.server import ServerConnection
from websockets.asyncio.server import serve as listen
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from engram.errors import (
    ConfigurationError,
    EngramError,
    FederationError,
    PortTakenError,
    ProtocolError,
    RefusedError,
)
from engram.federation.aggregator import Aggregator, Outgoing
from engram.federation.clock import Clock
from engram.federation.codec import UP, Decoder, Digests, Encoder
from engram.federation.messages import Down, Finish, Hello, Log, Train, Up
from engram.federation.outcome import Outcome
from engram.federation.websocket.outbox import Outbox
from engram.federation.websocket.wire import (
    CLOSE_BAD_MESSAGE,
    CLOSE_NO_HELLO,
    CLOSE_REFUSED,
    CLOSE_REPLACED,
    CLOSE_TOO_LARGE,
    PATH,
    SUBPROTOCOL,
    WORKER_HEADER,
    close_within,
    end_half_open,
    token_of,
)

CLOSE_SECONDS = 5.0
"""How long a closing handshake may take at the end."""
FRAMES_AHEAD = 4
"""Fragments of a message that are read before the loop has taken them."""
SPARE_CONNECTIONS = 64
"""Connections beside one a worker: takeovers, and peers that have yet to say hello."""

Result = TypeVar("Result")
Step = Callable[[], list[Outgoing]]
log = logging.getLogger(__name__)


@dataclass(eq=False)
class _Peer:
    """One connection of a worker that has said hello, or is about to."""

    worker: str
    socket: ServerConnection
    encoder: Encoder
    decoder: Decoder[Up] = field(default_factory=lambda: Decoder[Up](UP))
    outbox: Outbox = field(default_factory=Outbox)
    heard: float = 0.0
    """When the last bytes came."""


class _Hub:
    """The server's state. Methods named `*_step` run in the aggregator's thread, all others in the loop."""

    def __init__(
        self,
        aggregator: Aggregator,
        authenticate: Callable[[str, str], bool],
        clock: Callable[[], float],
    ) -> None:
        self.aggregator = aggregator
        self.over = asyncio.Event()
        self.crash: BaseException | None = None
        self._authenticate = authenticate
        self._clock = clock
        self._digests = Digests()
        self._loop = asyncio.get_running_loop()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="aggregator")
        self._sockets: set[ServerConnection] = set()
        self._peers: dict[str, _Peer] = {}
        """Who gets a worker's messages; touched in the aggregator's thread only."""
        self._known: set[str] = set()
        self._told: set[str] = set()
        """Workers that were ever here, and those that were told of the end."""
        self._changed = asyncio.Event()

    # The handshake and the life of a connection.

    def admit(self, connection: ServerConnection, request: Request) -> Response | None:
        """Answer a handshake that is not to become a connection; None lets it through."""
        if request.path.partition("?")[0] != PATH:
            return connection.respond(http.HTTPStatus.NOT_FOUND, f"engram listens on {PATH}\n")
        worker = request.headers.get(WORKER_HEADER, "")
        if not self._authenticate(worker, token_of(request.headers.get("Authorization", ""))):
            log.warning("a connection as %r was refused: wrong token", worker[:80])
            return connection.respond(http.HTTPStatus.UNAUTHORIZED, "unknown worker or wrong token\n")
        if len(self._sockets) >= len(self.aggregator.settings.workers) + SPARE_CONNECTIONS:
            return connection.respond(http.HTTPStatus.SERVICE_UNAVAILABLE, "too many connections\n")
        return None

    async def handle(self, socket: ServerConnection) -> None:
        """Serve one connection until it ends."""
        request = socket.request
        worker = "" if request is None else request.headers.get(WORKER_HEADER, "")
        peer = _Peer(worker, socket, Encoder(self._digests))
        end_half_open(socket)
        self._sockets.add(socket)
        sender = asyncio.create_task(self._send(peer))
        try:
            await self._converse(peer)
        except ProtocolError as error:
            log.warning("%s sent what is no message: %s", worker, error)
            await self._in_thread(partial(self._bad_step, peer, "protocol", str(error)))
            await self._last_words(peer, sender)
            await close_within(socket, CLOSE_SECONDS, CLOSE_BAD_MESSAGE, str(error)[:100])
        except RefusedError as error:
            log.warning("%s was refused: %s", worker, error)
            peer.outbox.put(Finish("refused", str(error)))
            await self._last_words(peer, sender)
            await close_within(socket, CLOSE_SECONDS, CLOSE_REFUSED, "refused")
        except ConnectionClosed as error:
            if error.sent is not None and error.sent.code == CLOSE_TOO_LARGE and not error.rcvd_then_sent:
                log.warning("%s sent a message that is too large", worker)
                await self._in_thread(partial(self._bad_step, peer, "too-large", error.sent.reason))
        finally:
            sender.cancel()
            await self._step(lambda: self._gone_step(peer))
            self._sockets.discard(socket)
            self._changed.set()

    async def _converse(self, peer: _Peer) -> None:
        try:
            async with asyncio.timeout(self.aggregator.settings.hello_seconds):
                first = await self._read(peer)
        except TimeoutError:
            await close_within(peer.socket, CLOSE_SECONDS, CLOSE_NO_HELLO, "no hello in time")
            return
        await self._step(lambda: self._hello_step(peer, first))
        while True:
            data = await self._read(peer)
            await self._step(partial(self._message_step, peer, data))

    async def _read(self, peer: _Peer) -> bytes:
        """Return the next message; every fragment that arrives is a sign of life."""
        parts: list[bytes] = []
        async for part in peer.socket.recv_streaming(decode=False):
            parts.append(part)
            peer.heard = self._clock()
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def _send(self, peer: _Peer) -> None:
        """Send what the aggregator has for a peer, one message after the other."""
        try:
            while (message := await peer.outbox.get()) is not None:
                encoded = peer.encoder.encode(message)
                if isinstance(message, Finish):
                    self._told.add(peer.worker)
                # Queued now, so counted before anything that the worker answers.
                counted = self._in_thread(partial(self._count_step, peer, message, encoded.size))
                await asyncio.gather(counted, peer.socket.send(encoded.chunks()))
                if isinstance(message, Train):
                    await self._in_thread(partial(self.aggregator.sent, message, self._clock()))
        except ConnectionClosed:
            return
        except Exception as error:  # ours to answer for, whatever it is: the worker would wait for ever
            self.crash = FederationError(f"a message for {peer.worker} cannot be sent: {error}")
            self.crash.__cause__ = error
            await self._fail(self.crash)
            self.over.set()

    @staticmethod
    async def _last_words(peer: _Peer, sender: asyncio.Task[None]) -> None:
        """Send what is waiting for a peer that is about to be closed, if it still reads."""
        peer.outbox.end()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(sender, CLOSE_SECONDS)

    # Steps in the aggregator's thread.

    async def _in_thread(self, work: Callable[[], Result]) -> Result:
        return await self._loop.run_in_executor(self._thread, work)

    async def _step(self, step: Step) -> None:
        """Run a step of the aggregator and send what it returns; an error in it ends the run, not us."""
        try:
            await self._in_thread(lambda: self._post_step(step))
        except (ProtocolError, RefusedError):
            raise
        except EngramError as error:
            await self._fail(error)
        except Exception as error:  # a learner of the user's own may raise anything: serve() raises it again
            self.crash = error
            await self._fail(FederationError(f"{type(error).__name__}: {error}"))
        if self.aggregator.outcome is not None or self.crash is not None:
            self.over.set()

    async def _fail(self, error: EngramError) -> None:
        await self._in_thread(lambda: self._post_step(lambda: self.aggregator.fail(error)))

    def _post_step(self, step: Step) -> None:
        """Hand what a step returns, in its order, to the connections as they are then."""
        for worker, message in step():
            peer = self._peers.get(worker)
            if peer is not None:
                self._loop.call_soon_threadsafe(peer.outbox.put, message)

    def _count_step(self, peer: _Peer, message: Down, size: int) -> None:
        self.aggregator.transferred(peer.worker, "down", size, message)

    def _hello_step(self, peer: _Peer, data: bytes) -> list[Outgoing]:
        hello = peer.decoder.decode(data)
        if not isinstance(hello, Hello):
            raise ProtocolError(f"{type(hello).__name__} before hello")
        self.aggregator.transferred(peer.worker, "up", len(data), hello)
        before = self._peers.get(peer.worker)
        outgoing = self.aggregator.connect(peer.worker, hello, self._clock())
        self._peers[peer.worker] = peer
        self._known.add(peer.worker)
        if before is not None:
            closing = close_within(before.socket, CLOSE_SECONDS, CLOSE_REPLACED, "replaced")
            asyncio.run_coroutine_threadsafe(closing, self._loop)
        return outgoing

    def _message_step(self, peer: _Peer, data: bytes) -> list[Outgoing]:
        if self._peers.get(peer.worker) is not peer:
            return []
        message = peer.decoder.decode(data)
        if isinstance(message, Log):
            # It is about to end and will not hear of the run's end.
            self._known.discard(peer.worker)
        self.aggregator.transferred(peer.worker, "up", len(data), message)
        return self.aggregator.receive(peer.worker, message, self._clock())

    def _bad_step(self, peer: _Peer, reason: str, text: str) -> None:
        """Tell a peer that its bytes are no message; only its own connection ends."""
        for _, reject in self.aggregator.malformed(peer.worker, reason, text):
            self._loop.call_soon_threadsafe(peer.outbox.put, reject)

    def _gone_step(self, peer: _Peer) -> list[Outgoing]:
        if self._peers.get(peer.worker) is not peer:
            return []
        del self._peers[peer.worker]
        return self.aggregator.disconnect(peer.worker, self._clock())

    def _tick_step(self) -> list[Outgoing]:
        for worker, peer in self._peers.items():
            self.aggregator.heard(worker, peer.heard)
        return self.aggregator.tick(self._clock())

    # What `serve` does.

    async def tick(self) -> None:
        """Let the aggregator know that time has passed."""
        await self._step(self._tick_step)

    async def suspend(self) -> None:
        """Stop with everything durable."""
        await self._step(lambda: self.aggregator.suspend(self._clock()))

    async def drain(self) -> None:
        """Wait until every worker that was here has heard of the end and left, but not for ever."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.aggregator.settings.linger_seconds):
                while self._sockets or self._known - self._told:
                    self._changed.clear()
                    await self._changed.wait()

    def abort(self) -> None:
        """End the connections of those who do not even read."""
        for socket in self._sockets:
            socket.transport.abort()

    def close(self) -> None:
        """Let the aggregator's thread end."""
        self._thread.shutdown(wait=True)


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
    hub = _Hub(aggregator, authenticate, clock or Clock())
    try:
        server = await _listen(hub, host, port, tls)
        try:
            listening(server.sockets[0].getsockname()[1])
            await _run(hub, stop)
            if aggregator.outcome is None or aggregator.outcome.reason != "suspended":
                await hub.drain()
        finally:
            server.close()
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


async def _run(hub: _Hub, stop: asyncio.Event) -> None:
    """Tick until the run is over, or suspend it when asked to."""
    stopping = asyncio.create_task(stop.wait())
    over = asyncio.create_task(hub.over.wait())
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
        stopping.cancel()
        over.cancel()


async def _listen(hub: _Hub, host: str, port: int, tls: ssl.SSLContext | None) -> WebSocketServer:
    settings = hub.aggregator.settings
    secure: dict[str, Any] = {}
    if tls is not None:
        secure = {"ssl": tls, "ssl_handshake_timeout": settings.hello_seconds}
    try:
        return await listen(
            hub.handle,
            host,
            port,
            process_request=hub.admit,
            subprotocols=[Subprotocol(SUBPROTOCOL)],
            compression=None,
            # A step that holds the interpreter's lock would miss pings; any byte counts as life instead.
            ping_interval=None,
            open_timeout=settings.hello_seconds,
            close_timeout=CLOSE_SECONDS,
            max_size=hub.aggregator.message_limit,
            max_queue=FRAMES_AHEAD,
            **secure,
        )
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise PortTakenError(
                f"port {port} of {host} is taken", remedy="end what listens there, or take another port"
            ) from error
        raise ConfigurationError(
            f"port {port} of {host} cannot be listened on: {error.strerror or error}",
            remedy="give another host or port",
        ) from error
