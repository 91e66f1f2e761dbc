"""The connections of a server, and the thread that has the aggregator.

The event loop encodes and moves bytes. Everything that touches the aggregator (decoding, validation,
aggregation, evaluation, checkpoints) runs in one thread, in the order of arrival, so that the aggregator
needs no lock and the loop stays alive however long an evaluation takes. Brief updates that close nothing are
the exception: the loop takes them itself while the thread is idle, as the two would wait for each other for
longer than that takes.

What is under way is bounded whatever the number of workers: a connection reads its next message only when the
one before is dealt with, no frame is larger than a piece, and a large answer comes in pieces when the
aggregator has given credit, into memory that stands ready.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar, cast

from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from engram.errors import EngramError, FederationError, ProtocolError, RefusedError
from engram.federation.aggregator import Aggregator
from engram.federation.codec import UP, Common, Decoder, Encoder, looks_like_update
from engram.federation.messages import Credit, Down, Finish, Hello, Log, NoCredit, Offer, Outgoing, Train, Up
from engram.federation.pieces import Incoming, Room, TooLarge, is_piece
from engram.federation.tensors import Buffer
from engram.federation.websocket.entrance import Entrance
from engram.federation.websocket.gate import Gate
from engram.federation.websocket.lanes import Lanes
from engram.federation.websocket.outbox import Outbox
from engram.federation.websocket.stream import ServerStream
from engram.federation.websocket.turns import Turns
from engram.federation.websocket.wire import (
    CLOSE_BAD_MESSAGE,
    CLOSE_NO_HELLO,
    CLOSE_REFUSED,
    CLOSE_REPLACED,
    CLOSE_TOO_LARGE,
    SPARE_CONNECTIONS,
    WORKER_HEADER,
    close_within,
    end_half_open,
    header_of,
)

CLOSE_SECONDS = 5.0
"""How long a closing handshake may take at the end."""
BRIEF_SECONDS = 0.004
"""The loop takes an update itself when the one before took no longer."""

Result = TypeVar("Result")
Step = Callable[[], list[Outgoing]]
log = logging.getLogger(__name__)


@dataclass(eq=False)
class Peer:
    """One connection of a worker that has said hello, or is about to."""

    worker: str
    socket: ServerStream
    encoder: Encoder
    decoder: Decoder[Up] = field(default_factory=lambda: Decoder[Up](UP))
    outbox: Outbox = field(default_factory=Outbox)
    heard: float = 0.0
    """When the last bytes came."""
    dismissed: bool = False
    """Whether it was sent the run's end."""
    offered: Offer | None = None
    """The answer that it would send."""
    incoming: Incoming | None = None
    """The answer that it sends; set in the aggregator's thread, filled by the loop."""


class Hub:
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
        self._entrance = Entrance(authenticate)
        self._clock = clock
        self._common = Common()
        self._loop = asyncio.get_running_loop()
        self._thread = Turns("aggregator")
        self._sockets: set[ServerConnection] = set()
        self._notes: deque[Callable[[], None]] = deque()
        """What was sent since the aggregator's last step, which counts it first: before any answer to it."""
        self._lanes = Lanes()
        self._room = Room(aggregator.settings.staging_slots)
        self._gate = Gate(aggregator.settings.staging_bytes)
        self._peers: dict[str, Peer] = {}
        """Who gets a worker's messages; touched in the aggregator's thread only."""
        self._known: set[str] = set()
        self._told: set[str] = set()
        """Workers that were ever here, and those that were told of the end."""
        self._changed = asyncio.Event()
        self._took = math.inf
        """Seconds that the last small update took."""

    # The handshake and the life of a connection.

    def admit(self, connection: ServerConnection, request: Request) -> Response | None:
        """Answer a handshake that is not to become a connection; None lets it through."""
        workers = max(len(self.aggregator.settings.workers), len(self._known))
        full = len(self._sockets) >= workers + SPARE_CONNECTIONS
        return self._entrance.admit(connection, request, full=full)

    async def handle(self, socket: ServerConnection) -> None:
        """Serve one connection, a ServerStream, until it ends."""
        request = socket.request
        worker = "" if request is None else header_of(request, WORKER_HEADER)
        peer = Peer(worker, cast(ServerStream, socket), Encoder(self._common))
        peer.socket.heard, peer.socket.upload = partial(self._alive, peer), lambda: peer.incoming
        peer.socket.gate = self._gate
        end_half_open(socket)
        self._sockets.add(socket)
        sender = asyncio.create_task(self._send(peer))
        try:
            await self._converse(peer)
        except TooLarge as error:
            log.warning("%s would send a message that is too large: %s", worker, error)
            await self._in_thread(partial(self._bad_step, peer, "too-large", str(error)))
            await self._dismiss(peer, sender, CLOSE_TOO_LARGE, str(error)[:100])
        except ProtocolError as error:
            log.warning("%s sent what is no message: %s", worker, error)
            await self._in_thread(partial(self._bad_step, peer, "protocol", str(error)))
            await self._dismiss(peer, sender, CLOSE_BAD_MESSAGE, str(error)[:100])
        except RefusedError as error:
            log.warning("%s was refused: %s", worker, error)
            peer.outbox.put(Finish("refused", str(error)))
            await self._dismiss(peer, sender, CLOSE_REFUSED, "refused")
        except ConnectionClosed as error:
            if peer.dismissed and error.rcvd is not None:
                # It has read the end and closed; a connection that broke may have swallowed it.
                self._told.add(worker)
            if error.sent is not None and error.sent.code == CLOSE_TOO_LARGE and not error.rcvd_then_sent:
                log.warning("%s sent a message that is too large", worker)
                await self._in_thread(partial(self._bad_step, peer, "too-large", error.sent.reason))
        finally:
            sender.cancel()
            await self._step(lambda: self._gone_step(peer))
            self._sockets.discard(socket)
            self._changed.set()

    async def _converse(self, peer: Peer) -> None:
        try:
            async with asyncio.timeout(self.aggregator.settings.hello_seconds):
                first = await self._read(peer)
        except TimeoutError:
            await self._in_thread(partial(self.aggregator.refused, "", "protocol", "no hello in time"))
            await close_within(peer.socket, CLOSE_SECONDS, CLOSE_NO_HELLO, "no hello in time")
            return
        await self._step(lambda: self._hello_step(peer, first))
        while True:
            # No name is kept of what came: it would be in memory until the next message is there.
            await self._take(peer, await self._read(peer))

    async def _take(self, peer: Peer, data: Buffer | Incoming) -> None:
        """Let the aggregator have what came."""
        if isinstance(data, Incoming):
            await self._hand_over(looks_like_update(data.data), partial(self._answer_step, peer, data))
        elif not is_piece(data):
            await self._hand_over(looks_like_update(data), partial(self._message_step, peer, data))
        else:
            # One too small to have gone to its place, or one that has none: it is passed over or odd.
            incoming = peer.incoming
            if incoming is not None and incoming.take(data, peer.heard) and incoming.complete:
                await self._step(partial(self._answer_step, peer, incoming))

    async def _hand_over(self, update: bool, step: Step) -> None:
        """Run a step, here for an update that is brief, as the one before, and not the last of a round."""
        if not update:
            await self._step(step)
            return
        if self._took <= BRIEF_SECONDS:
            # Else one thing that the thread has to do would draw all that comes meanwhile after it.
            await self._thread.rest()
        brief = self._took <= BRIEF_SECONDS and self._thread.idle and self.aggregator.lacking > 1
        await self._step(partial(self._timed, step), brief=brief)

    async def _read(self, peer: Peer) -> Buffer | Incoming:
        """Return the next message, piece, or answer that is complete: a sign of life."""
        data = await peer.socket.receive()
        peer.heard = self._clock()
        return data

    def _alive(self, peer: Peer) -> None:
        """Note that part of something large has come."""
        peer.heard = self._clock()
        if peer.incoming is not None:
            peer.incoming.heard = peer.heard

    async def _send(self, peer: Peer) -> None:
        """Send what the aggregator has for a peer, one message after the other."""
        try:
            while (message := await peer.outbox.get()) is not None:
                encoded = peer.encoder.encode(message)
                peer.dismissed = peer.dismissed or isinstance(message, Finish)
                count = self.aggregator.transferred
                self._notes.append(partial(count, peer.worker, "down", encoded.size, message))
                await self._lanes.transmit(peer.socket, encoded)
                if isinstance(message, Train):
                    self._notes.append(partial(self.aggregator.sent, message, self._clock()))
        except ConnectionClosed:
            return
        except Exception as error:  # ours to answer for, whatever it is: the worker would wait for ever
            self.crash = FederationError(f"a message for {peer.worker} cannot be sent: {error}")
            self.crash.__cause__ = error
            await self._fail(self.crash)
            self.over.set()

    @staticmethod
    async def _dismiss(peer: Peer, sender: asyncio.Task[None], code: int, reason: str) -> None:
        """Send what is waiting for a peer, if it still reads, and close; what it still says is for nobody."""
        peer.outbox.end()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(sender, CLOSE_SECONDS)
        closing = asyncio.create_task(close_within(peer.socket, CLOSE_SECONDS, code, reason))
        with contextlib.suppress(ConnectionClosed):
            while True:
                await peer.socket.recv(decode=False)
        await closing

    # Steps in the aggregator's thread.

    async def _in_thread(self, work: Callable[[], Result], *, brief: bool = False) -> Result:
        return self._thread.do_here(work) if brief else await self._thread.take(work)

    async def _step(self, step: Step, *, brief: bool = False) -> None:
        """Run a step, here if it is brief, and send what it returns; an error in it ends the run, not us."""
        try:
            await self._in_thread(lambda: self._post_step(step), brief=brief)
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
        self._take_notes()
        posted: list[tuple[Peer, Down]] = []
        for worker, message in step():
            if (peer := self._peers.get(worker)) is None:
                continue
            if isinstance(message, Credit) and peer.offered is not None:
                memory = self._room.lend(peer.offered.size)
                peer.incoming = Incoming(message.offer, memory, self._clock())
            elif isinstance(message, NoCredit):
                peer.incoming = None
            posted.append((peer, message))
        if posted:
            self._thread.tell(partial(self._post, posted))
        self.aggregator.begin(self._clock())
        self.aggregator.settle()

    @staticmethod
    def _post(letters: list[tuple[Peer, Down]]) -> None:
        for peer, message in letters:
            peer.outbox.put(message)

    def _take_notes(self) -> None:
        while self._notes:
            self._notes.popleft()()
        for why in self._entrance.refusals():
            self.aggregator.refused("", "unauthorised", why)

    def _hello_step(self, peer: Peer, data: Buffer | Incoming) -> list[Outgoing]:
        if isinstance(data, Incoming):
            raise ProtocolError("a piece of a message before hello")
        try:
            hello = peer.decoder.decode(data)
        except RefusedError as error:
            self.aggregator.refused(peer.worker, "unauthorised", str(error))
            raise
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

    def _message_step(self, peer: Peer, data: Buffer) -> list[Outgoing]:
        if self._peers.get(peer.worker) is not peer:
            return []
        message = peer.decoder.decode(data)
        if isinstance(message, Log):
            # It is about to end and will not hear of the run's end.
            self._known.discard(peer.worker)
        if isinstance(message, Offer):
            limit = self.aggregator.message_limit
            if message.size > limit:
                raise TooLarge(f"an answer of {message.size} bytes, at most {limit} are taken")
            peer.offered, peer.incoming = message, None
        self.aggregator.transferred(peer.worker, "up", len(data), message)
        return self.aggregator.receive(peer.worker, message, self._clock())

    def _timed(self, step: Step) -> list[Outgoing]:
        """Run an update's step and note the time."""
        start = time.perf_counter()
        try:
            return step()
        finally:
            self._took = time.perf_counter() - start

    def _answer_step(self, peer: Peer, incoming: Incoming) -> list[Outgoing]:
        """Take in an answer that has come whole, and let the next one come."""
        if self._peers.get(peer.worker) is not peer or peer.incoming is not incoming:
            return []
        peer.incoming = None
        outgoing = self._message_step(peer, incoming.data)
        incoming.forget()
        return outgoing + self.aggregator.uploaded(peer.worker, self._clock())

    def _bad_step(self, peer: Peer, reason: str, text: str) -> None:
        """Tell a peer that its bytes are no message; only its own connection ends."""
        for _, reject in self.aggregator.malformed(peer.worker, reason, text):
            self._thread.tell(partial(peer.outbox.put, reject))

    def _gone_step(self, peer: Peer) -> list[Outgoing]:
        if self._peers.get(peer.worker) is not peer:
            return []
        del self._peers[peer.worker]
        return self.aggregator.disconnect(peer.worker, self._clock())

    def _tick_step(self) -> list[Outgoing]:
        for worker, peer in self._peers.items():
            self.aggregator.heard(worker, peer.heard)
            if (incoming := peer.incoming) is not None:
                # One that is complete waits for us.
                heard = self._clock() if incoming.complete else incoming.heard
                self.aggregator.uploading(worker, heard)
        return self.aggregator.tick(self._clock())

    # What `serve` does.

    async def tick(self) -> None:
        """Let the aggregator know that time has passed."""
        await self._step(self._tick_step)

    def reassure(self) -> None:
        """Keep those from giving up who are not read while the aggregator is busy."""
        for socket in self._sockets:
            cast(ServerStream, socket).reassure()

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
        self._thread.close(self._take_notes)
