"""A worker's end of the WebSocket transport.

Two threads: the caller's trains, the other one has the network with an event loop of its own, so that
heartbeats and reconnects go on during a long training step. They share two queues. Every connection has a
number; an answer to an order of an earlier connection is dropped, since the aggregator says on each new one
what it still wants.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import ipaddress
import logging
import os
import queue
import random
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple
from urllib.parse import urlsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus, WebSocketException
from websockets.typing import Subprotocol

from engram.errors import ConfigurationError, ProtocolError, RefusedError, RetryError
from engram.federation.codec import DOWN, Decoder, Encoder
from engram.federation.messages import (
    Consolidate,
    Down,
    Evaluate,
    Finish,
    Heartbeat,
    Log,
    Message,
    Reject,
    Train,
    Up,
    Welcome,
)
from engram.federation.roles import LocalLearner
from engram.federation.websocket.wire import PATH, SUBPROTOCOL, WORKER_HEADER, bearer
from engram.federation.worker import WorkerSession, failure_of

OPEN_SECONDS = 20.0
CLOSE_SECONDS = 2.0
POLL_SECONDS = 0.2
"""How often the training thread looks whether it is to stop."""
DEAD_SECONDS = 60
"""Bytes that stay unacknowledged for so long end a half-open connection."""
FIRST_DELAY, NORMAL_DELAY, LONG_DELAY = 0.1, 1.5, 30.0
LONG_AFTER = 600.0
"""After ten minutes without contact reconnects get rarer."""

log = logging.getLogger(__name__)


class Target(NamedTuple):
    """Where to connect and as whom."""

    worker: str
    endpoints: tuple[str, ...]
    """URLs, tried in turn."""
    token: str
    orphan_seconds: float


class Arrived(NamedTuple):
    """A message of the aggregator and the connection it came on."""

    connection: int
    message: Down


class Backoff:
    """Seconds before each reconnect: .1 doubling to 1.5 (30 after ten minutes), each times .5 to 1."""

    def __init__(self, seed: str) -> None:
        self._random = random.Random(hashlib.sha256(seed.encode()).digest())
        self._failures = 0

    def reset(self) -> None:
        """Start over: there was contact."""
        self._failures = 0

    def next(self, silent: float) -> float:
        """Return the next delay after `silent` seconds without contact."""
        most = NORMAL_DELAY if silent < LONG_AFTER else LONG_DELAY
        delay = min(most, FIRST_DELAY * 2.0 ** min(self._failures, 20))
        self._failures += 1
        return delay * (0.5 + 0.5 * self._random.random())


class _Link:
    """The network thread: keeps a connection up, beats, and passes messages both ways."""

    def __init__(self, target: Target, session: WorkerSession) -> None:
        self.inbox: queue.SimpleQueue[Arrived | Exception] = queue.SimpleQueue()
        self.connection = 0
        """Number of the current connection."""
        self.beat = Heartbeat("idle")
        """What the next heartbeat says; replaced as a whole by the training thread."""
        self.over = False
        """The aggregator has ended the run; what is being trained is for nobody."""
        self._target, self._session = target, session
        self._loop = asyncio.new_event_loop()
        self._closing = asyncio.Event()
        self._outbox: asyncio.Queue[Message | None] | None = None
        self._contact = time.monotonic()
        self._backoff = Backoff(f"{target.worker}/reconnect")
        self._thread = threading.Thread(target=self._main, name="engram-network", daemon=True)

    # For the training thread.

    def start(self) -> None:
        """Begin to connect."""
        self._thread.start()

    def send(self, connection: int, message: Up) -> None:
        """Send a message, unless `connection` is not the current one any more."""
        with contextlib.suppress(RuntimeError):  # the network thread has ended by itself
            self._loop.call_soon_threadsafe(self._put, connection, message)

    def arrived(self, *, block: bool) -> list[Arrived]:
        """Return what has come in; with `block` wait a moment. Raises what ended the network thread."""
        items: list[Arrived | Exception] = []
        with contextlib.suppress(queue.Empty):
            if block:
                items.append(self.inbox.get(timeout=POLL_SECONDS))
            while True:
                items.append(self.inbox.get_nowait())
        for item in items:
            if isinstance(item, Exception):
                raise item
        return [item for item in items if isinstance(item, Arrived)]

    def close(self) -> None:
        """Send what is waiting, close the connection and end the thread."""
        with contextlib.suppress(RuntimeError):  # as above
            self._loop.call_soon_threadsafe(self._leave)
        self._thread.join(timeout=3 * CLOSE_SECONDS)

    # In the network thread.

    def _main(self) -> None:
        try:
            self._loop.run_until_complete(self._keep_connected())
        except Exception as error:  # the other thread waits for something in the inbox
            self.inbox.put(error)
        finally:
            self._loop.close()

    def _put(self, connection: int, message: Message) -> None:
        if connection == self.connection and self._outbox is not None:
            self._outbox.put_nowait(message)

    def _leave(self) -> None:
        self._closing.set()
        if self._outbox is not None:
            self._outbox.put_nowait(None)

    async def _keep_connected(self) -> None:
        turn = 0
        while not self._closing.is_set():
            endpoint = self._target.endpoints[turn % len(self._target.endpoints)]
            try:
                await self._connect(endpoint)
            except InvalidStatus as error:
                if error.response.status_code in (401, 403):
                    body = bytes(error.response.body or b"").decode(errors="replace").strip()
                    self.inbox.put(RefusedError(f"{endpoint} refused {self._target.worker}: {body}"))
                    return
                log.info("%s answered %s", endpoint, error.response.status_code)
            except (OSError, TimeoutError, WebSocketException, ProtocolError) as error:
                log.info("%s: %s", endpoint, error)
            turn += 1
            silent = time.monotonic() - self._contact
            if silent >= self._target.orphan_seconds:
                self.inbox.put(
                    RetryError(f"no contact with {', '.join(self._target.endpoints)} for {silent:.0f} s")
                )
                return
            delay = min(self._backoff.next(silent), self._target.orphan_seconds - silent)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), delay)

    async def _connect(self, endpoint: str) -> None:
        """Hold one connection until it ends."""
        async with connect(
            endpoint,
            additional_headers={
                "Authorization": bearer(self._target.token),
                WORKER_HEADER: self._target.worker,
            },
            subprotocols=[Subprotocol(SUBPROTOCOL)],
            compression=None,
            ping_interval=None,
            open_timeout=OPEN_SECONDS,
            close_timeout=CLOSE_SECONDS,
            max_size=None,
            proxy=None if _is_loopback(endpoint) else True,
        ) as peer:
            _end_half_open(peer)
            self.connection += 1
            self._outbox = asyncio.Queue()
            self._outbox.put_nowait(self._session.hello())
            if self._closing.is_set():
                return
            sender = asyncio.create_task(self._send(peer, self._outbox))
            period: asyncio.Queue[float] = asyncio.Queue()
            beater = asyncio.create_task(self._beat(self._outbox, period))
            receiver = asyncio.create_task(self._receive(peer, period))
            try:
                done, _ = await asyncio.wait({sender, receiver}, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
            finally:
                self._outbox = None
                for task in (sender, beater, receiver):
                    task.cancel()
                await asyncio.gather(sender, beater, receiver, return_exceptions=True)

    async def _receive(self, peer: ClientConnection, period: asyncio.Queue[float]) -> None:
        decoder = Decoder[Down](DOWN)
        while True:
            data = await peer.recv(decode=False)
            self._contact = time.monotonic()
            message = decoder.decode(data)
            if isinstance(message, Welcome):
                self._backoff.reset()
                period.put_nowait(message.heartbeat_seconds)
            elif isinstance(message, Finish):
                self.over = True
            self.inbox.put(Arrived(self.connection, message))

    @staticmethod
    async def _send(peer: ClientConnection, outbox: asyncio.Queue[Message | None]) -> None:
        encoder = Encoder()
        while (message := await outbox.get()) is not None:
            await peer.send(encoder.encode(message).chunks())

    async def _beat(self, outbox: asyncio.Queue[Message | None], period: asyncio.Queue[float]) -> None:
        """Beat as often as the welcome says, from then on."""
        seconds = await period.get()
        while True:
            await asyncio.sleep(seconds)
            beat = self.beat
            outbox.put_nowait(Heartbeat(beat.state, beat.progress, beat.loss, resident_bytes(), gpu_bytes()))


def run_worker(
    learner: LocalLearner,
    *,
    worker: str,
    job_digest: str,
    endpoints: Sequence[str],
    token: str,
    attempt: int,
    orphan_seconds: float,
    stop: threading.Event,
) -> str:
    """Work for the aggregator at one of `endpoints` (ws://host:port) until it says that the run is over.

    Trains in the calling thread. Returns the reason of the end: complete, failed or suspended. Raises
    RefusedError when the aggregator refuses this worker, RetryError after `orphan_seconds` without contact or
    when `stop` is set (checked at every training step), and whatever the learner raises, after telling the
    aggregator.
    """
    session = WorkerSession(learner, worker, job_digest, attempt)
    target = Target(worker, tuple(_url(endpoint) for endpoint in endpoints), token, orphan_seconds)
    if not target.endpoints:
        raise ConfigurationError("no endpoint of the aggregator is given", remedy="write ws://HOST:PORT")
    link = _Link(target, session)
    link.start()
    try:
        return _work(link, session, stop)
    except Exception as error:
        text, code = failure_of(error)
        link.send(link.connection, Log(text, code))
        raise
    finally:
        link.close()


class _Abandoned(Exception):
    """The run ended while this worker was still training."""


def _work(link: _Link, session: WorkerSession, stop: threading.Event) -> str:
    """Answer messages until the end."""

    def progress(share: float, loss: float) -> None:
        if stop.is_set():
            raise RetryError("told to stop")
        if link.over:
            raise _Abandoned
        link.beat = Heartbeat("training", share, loss)

    waiting: list[Arrived] = []
    while session.finish is None:
        if stop.is_set():
            raise RetryError("told to stop")
        waiting = current(waiting + link.arrived(block=not waiting), link.connection)
        if not waiting:
            continue
        connection, message = waiting.pop(0)
        if isinstance(message, Reject):
            log.warning("%s: %s: %s", session.worker, message.reason, message.message)
        with contextlib.suppress(_Abandoned):
            for answer in session.receive(message, progress):
                link.send(connection, answer)
        link.beat = Heartbeat("idle")
    return session.finish.reason


def current(waiting: list[Arrived], connection: int) -> list[Arrived]:
    """Return the messages that still matter, in order.

    What an earlier connection brought and nobody has started on, the current one brings again. A slow worker
    skips orders that newer ones have overtaken, or it would be late for ever; a task's end is never skipped.
    """
    kept: list[Arrived] = []
    for arrived in waiting:
        message = arrived.message
        if arrived.connection != connection and not isinstance(message, Finish):
            continue
        if isinstance(message, Train | Evaluate | Consolidate | Finish):
            kept = [item for item in kept if not isinstance(item.message, Train | Evaluate)]
        kept.append(arrived)
    return kept


def _url(endpoint: str) -> str:
    """Return a full URL for ws://host:port, host:port, or a URL with a path of its own."""
    url = endpoint if "://" in endpoint else f"ws://{endpoint}"
    parts = urlsplit(url)
    if parts.scheme not in ("ws", "wss") or not parts.hostname:
        raise ConfigurationError(f"{endpoint!r} is no endpoint", remedy="write ws://HOST:PORT")
    return url if parts.path.strip("/") else url.rstrip("/") + PATH


def _is_loopback(url: str) -> bool:
    """Return whether `url` is on this machine, which no proxy of the environment can reach."""
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _end_half_open(peer: ClientConnection) -> None:
    """Let the kernel end a connection whose other side is gone without a word; heartbeats are the probe."""
    raw = peer.transport.get_extra_info("socket")
    option = getattr(socket, "TCP_USER_TIMEOUT", None)
    if raw is not None and option is not None:
        raw.setsockopt(socket.IPPROTO_TCP, option, DEAD_SECONDS * 1000)


def resident_bytes() -> int:
    """Return the memory of this process that is in use; 0 where the system does not say."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0


def gpu_bytes() -> int:
    """Return the memory that torch has allocated on the GPU; looks at torch only where it is loaded."""
    torch = sys.modules.get("torch")
    cuda: Callable[[], int] | None = getattr(getattr(torch, "cuda", None), "memory_allocated", None)
    initialised = getattr(getattr(torch, "cuda", None), "is_initialized", None)
    return cuda() if cuda is not None and initialised is not None and initialised() else 0
