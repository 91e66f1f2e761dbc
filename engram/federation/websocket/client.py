"""A worker's end of the WebSocket transport.

Two threads: the caller's trains, the other one has the network with an event loop of its own, so that
heartbeats and reconnects go on during a long training step. Every connection has a number; an answer to an
order of an earlier connection is dropped, since the aggregator says on each new one what it still wants.

A connection whose other side is gone without a word is found out twice: when the other side takes new
connections (`silence`), and by pings of our own that nothing comes back on. Missed heartbeats alone close
nothing, nor does the kernel: an aggregator that is too busy to read looks to TCP_USER_TIMEOUT as if gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

from websockets.exceptions import ConnectionClosed, WebSocketException

from engram.errors import ConfigurationError, ContactLostError, ProtocolError, RefusedError, RetryError
from engram.federation.codec import DOWN, Decoder
from engram.federation.compression.packer import Packer
from engram.federation.messages import (
    Ack,
    Credit,
    Down,
    Heartbeat,
    LabelCounts,
    Message,
    NoCredit,
    Reject,
    Up,
    Welcome,
)
from engram.federation.pieces import Room
from engram.federation.roles import LocalLearner
from engram.federation.websocket.backoff import Backoff
from engram.federation.websocket.complaints import Complaints
from engram.federation.websocket.dial import CLOSE_SECONDS, Unreachable, explain, open_connection, url_of
from engram.federation.websocket.inbox import Inbox
from engram.federation.websocket.memory import keep_freed_memory
from engram.federation.websocket.silence import watch
from engram.federation.websocket.stream import ClientStream
from engram.federation.websocket.tls import TlsClient
from engram.federation.websocket.uplink import Uplink
from engram.federation.websocket.usage import gpu_bytes, resident_bytes
from engram.federation.websocket.wire import (
    CLOSE_BAD_MESSAGE,
    CLOSE_REPLACED,
    CLOSE_TOO_LARGE,
    WORKER_HEADER,
    bearer,
    close_within,
)
from engram.federation.worker import WorkerSession, failure_of

POLL_SECONDS = 0.2
"""How often the training thread looks whether it is to stop."""
MODELS_KEPT = 2
"""Memory for received models that is kept when nobody uses it: the last one, and the one that comes."""
PROBE_SECONDS, PROBES = 15.0, 4
"""A connection on which so many pings in a row, so far apart, brought nothing back is given up."""

log = logging.getLogger(__name__)


class Target(NamedTuple):
    """Where to connect and as whom."""

    worker: str
    endpoints: Callable[[], Sequence[str]]
    """Asked before each round of attempts; URLs or host:port, tried in their order."""
    token: str
    orphan_seconds: float
    tls: TlsClient | None = None


class _Link:
    """The network thread: keeps a connection up, beats, and passes messages both ways."""

    def __init__(self, target: Target, session: WorkerSession) -> None:
        self.inbox = Inbox()
        self.beat = Heartbeat("idle")
        """What the next heartbeat says; replaced as a whole by the training thread."""
        self._target, self._session = target, session
        self._loop = asyncio.new_event_loop()
        self._keeping = self._loop.create_task(self._keep_connected())
        self._connection = 0
        """Number of the current connection."""
        self._uplink: Uplink | None = None
        self._room = Room(MODELS_KEPT)
        self._leaving = self._welcomed = self._opened = False
        self._contact = time.monotonic()
        """When the aggregator last gave a sign of life."""
        self._backoff = Backoff(f"{target.worker}/reconnect")
        self._complaints = Complaints(lambda text: log.warning("%s: %s", target.worker, text))
        self._good = ""
        """The endpoint that worked last; tried first after a cut."""
        self._thread = threading.Thread(target=self._main, name="engram-network", daemon=True)

    # For the training thread.

    def start(self) -> None:
        """Begin to connect."""
        self._thread.start()

    def send(self, connection: int | None, message: Up) -> None:
        """Send a message, unless `connection` is not the current one any more; None: on any."""
        with contextlib.suppress(RuntimeError):  # the network thread has ended by itself
            self._loop.call_soon_threadsafe(self._put, connection, message)

    def close(self) -> None:
        """Send what is waiting, close the connection and end the thread."""
        with contextlib.suppress(RuntimeError):  # as above
            self._loop.call_soon_threadsafe(self._leave)
        self._thread.join(timeout=CLOSE_SECONDS)
        with contextlib.suppress(RuntimeError):  # it still sends to somebody who does not read
            self._loop.call_soon_threadsafe(self._keeping.cancel)
        self._thread.join(timeout=2 * CLOSE_SECONDS)

    # In the network thread.

    def _main(self) -> None:
        try:
            with contextlib.suppress(asyncio.CancelledError):
                self._loop.run_until_complete(self._keeping)
        except Exception as error:  # the other thread waits for something in the inbox
            self.inbox.fail(error)
        finally:
            self._loop.close()

    def _put(self, connection: int | None, message: Message) -> None:
        if connection in (None, self._connection) and self._uplink is not None:
            self._uplink.put(message)

    def _leave(self) -> None:
        self._leaving = True
        if self._uplink is not None:
            self._uplink.end()
        else:
            self._keeping.cancel()

    async def _keep_connected(self) -> None:
        """Connect again and again until the end, or until there is no point in it: raises why."""
        orphan_seconds = self._target.orphan_seconds
        while True:
            unwanted, refused = False, ""
            for endpoint in self._candidates():
                self._welcomed = False
                try:
                    unwanted = await self._attempt(endpoint)
                except Unreachable as trouble:
                    self._complaints.add(endpoint, trouble, time.monotonic() - self._contact)
                    refused = refused or (str(trouble) if trouble.step == "token" else "")
                if self._leaving or self.inbox.over:
                    return
                if self._welcomed or unwanted:
                    break
            else:
                if refused:
                    raise RefusedError(f"the aggregator refused {self._target.worker}: {refused}")
            silent = time.monotonic() - self._contact
            if silent >= orphan_seconds:
                wrong = self._complaints.summary() or ", ".join(self._target.endpoints())
                raise ContactLostError(f"no contact with the aggregator for {silent:.0f} s: {wrong}")
            delay = self._backoff.next(silent, unwanted=unwanted)
            await asyncio.sleep(min(delay, orphan_seconds - silent))

    def _candidates(self) -> list[str]:
        """Return the endpoints as they are now, the one that worked last before the others."""
        endpoints = list(self._target.endpoints())
        return sorted(endpoints, key=lambda endpoint: endpoint != self._good)

    async def _attempt(self, endpoint: str) -> bool:
        """Connect and stay; return whether the aggregator ended the connection on purpose.

        Raises Unreachable when there was no connection, and what makes every further attempt pointless.
        """
        url = url_of(endpoint, tls=self._target.tls is not None)
        try:
            await self._connect(endpoint, url)
        except ConnectionClosed as error:
            return self._why_closed(endpoint, error)
        except ProtocolError as error:
            log.warning("%s sent what is no message: %s", endpoint, error)
            return True
        except (Unreachable, OSError, WebSocketException) as error:
            if self._opened:
                log.info("%s: %s", endpoint, error)
                if self._welcomed:
                    self._backoff.reset()
                return False
            raise explain(error, url, self._target.tls) from error
        return False

    def _why_closed(self, endpoint: str, error: ConnectionClosed) -> bool:
        """Return whether the aggregator ended a connection on purpose. Raises when it always would."""
        code = None if error.rcvd is None else error.rcvd.code
        if code == CLOSE_TOO_LARGE:
            raise ConfigurationError(
                f"what {self._target.worker} sent is larger than the aggregator takes, which is three "
                "times the model, an update and some room",
                field="spec.algorithm.name",
                remedy="let the algorithm report less beside the weights",
            ) from error
        if code in (CLOSE_REPLACED, CLOSE_BAD_MESSAGE):
            log.warning("%s ended the connection of %s: %s", endpoint, self._target.worker, error)
            return True
        log.info("%s: %s", endpoint, error)
        if self._welcomed:
            self._backoff.reset()
        return False

    async def _connect(self, endpoint: str, url: str) -> None:
        """Hold one connection until told to leave; its end, whatever it is, raises."""
        self._opened = False
        headers = {"Authorization": bearer(self._target.token), WORKER_HEADER: self._target.worker}
        async with await open_connection(url, self._target.tls, headers) as peer:
            self._opened = True
            self._complaints.mended(endpoint)
            if endpoint != self._good:
                log.info("%s: connected to %s", self._target.worker, endpoint)
            self._good = endpoint
            peer.heard, peer.lend = self._heard, self._room.lend
            uplink = Uplink()
            period: asyncio.Queue[float] = asyncio.Queue()
            self._connection, self._uplink = self.inbox.open(), uplink
            self._session.came(endpoint, self._complaints.summary())
            uplink.put(self._session.hello())
            parts = [
                self._send(peer, uplink),
                self._beat(uplink, period),
                self._receive(peer, uplink, period),
            ]
            watches = [self._probe(peer), watch(peer, lambda: self._contact)]
            tasks = [asyncio.create_task(part) for part in (*parts, *watches)]
            try:
                done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
            finally:
                self._uplink = None
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                await close_within(peer, CLOSE_SECONDS)

    async def _receive(self, peer: ClientStream, uplink: Uplink, period: asyncio.Queue[float]) -> None:
        decoder = Decoder[Down](DOWN)
        while True:
            data = await peer.receive()
            self._heard()
            message = decoder.decode(data)
            match message:
                case Welcome():
                    self._welcomed, uplink.whole_bytes = True, message.whole_bytes
                    period.put_nowait(message.heartbeat_seconds)
                case Credit():
                    uplink.credit(message)
                    continue
                case NoCredit():
                    uplink.no_credit(message)
                    continue
                case Ack():
                    continue  # nothing follows from it: the other thread need not wake up
            self.inbox.put(message)

    async def _send(self, peer: ClientStream, uplink: Uplink) -> None:
        while (item := await uplink.get()) is not None:
            await peer.transmit(item)
            if uplink.flowing:
                self._heard()

    def _heard(self) -> None:
        self._contact = time.monotonic()

    async def _beat(self, uplink: Uplink, period: asyncio.Queue[float]) -> None:
        """Beat at the welcome and then as often as it says, so that a short run shows its memory, too."""
        seconds = await period.get()
        while True:
            beat = self.beat
            uplink.put(Heartbeat(beat.state, beat.progress, beat.loss, resident_bytes(), gpu_bytes()))
            await asyncio.sleep(seconds)

    async def _probe(self, peer: ClientStream) -> None:
        """Raise TimeoutError when nothing comes back any more, though the kernel sees nothing wrong.

        So it is with a proxy that has lost the other side, or an aggregator that stands still. Turns are
        counted, not seconds: a step that holds the interpreter's lock for minutes is one turn.
        """
        unanswered = 0
        while unanswered < PROBES:
            asked = time.monotonic()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PROBE_SECONDS):
                    await (await peer.ping())
                self._contact = time.monotonic()
            unanswered = 0 if self._contact >= asked else unanswered + 1
            await asyncio.sleep(max(0.0, asked + PROBE_SECONDS - time.monotonic()))
        raise TimeoutError(f"nothing came back for {PROBES * PROBE_SECONDS:g} s")


def run_worker(
    learner: LocalLearner,
    *,
    worker: str,
    job_digest: str,
    endpoints: Sequence[str] | Callable[[], Sequence[str]],
    token: str,
    attempt: int,
    orphan_seconds: float,
    stop: threading.Event,
    tls: TlsClient | None = None,
    labels: LabelCounts | None = None,
    remark: str = "",
    packer: Packer | None = None,
) -> str:
    """Work for the aggregator at one of `endpoints` (host:port or a URL) until it says that the run is over.

    `endpoints` may be a function: it is asked again before each attempt to reconnect, in any thread. `labels`
    tells the aggregator what this worker holds, where it cannot know by itself, `remark` what a person should
    know of this worker. `packer` packs its updates where the job compresses them.
    Trains in the calling thread.
    Returns the reason of the end: complete or failed. Raises RefusedError when the aggregator refuses this
    worker, ContactLostError after `orphan_seconds`, RetryError when `stop` is set (checked at every training
    step), and whatever the learner raises, after telling the aggregator.
    """
    ask = endpoints if callable(endpoints) else partial(tuple, endpoints)
    if not ask():
        raise ConfigurationError("no endpoint of the aggregator is given", remedy="write HOST:PORT")
    for endpoint in ask():
        url_of(endpoint, tls=tls is not None)
    if tls is not None:
        tls.context()
    keep_freed_memory()
    session = WorkerSession(learner, worker, job_digest, attempt, labels, remark, packer)
    link = _Link(Target(worker, ask, token, orphan_seconds, tls), session)
    link.start()
    try:
        return _work(link, session, stop)
    except Exception as error:
        link.send(None, failure_of(error))
        raise
    finally:
        link.close()


class _Abandoned(Exception):
    """The run, or the round, ended while this worker was still training for it."""


def _work(link: _Link, session: WorkerSession, stop: threading.Event) -> str:
    """Answer messages until the end."""
    inbox = link.inbox

    def progress(share: float, loss: float) -> None:
        if stop.is_set():
            raise RetryError("told to stop")
        if inbox.over:
            raise _Abandoned
        if inbox.error is not None:
            raise inbox.error
        order = session.holds
        if order is not None and inbox.overtaken(*order):
            log.info("%s: round %d of task %d was closed without it", session.worker, order[1], order[0])
            raise _Abandoned
        link.beat = Heartbeat("training", share, loss)

    while session.finish is None:
        if stop.is_set():
            raise RetryError("told to stop")
        arrived = inbox.take(POLL_SECONDS)
        if arrived is None:
            continue
        connection, message = arrived
        if isinstance(message, Reject):
            log.warning("%s: %s: %s", session.worker, message.reason, message.message)
        with contextlib.suppress(_Abandoned):
            for answer in session.receive(message, progress):
                link.send(connection, answer)
        link.beat = Heartbeat("idle")
    return session.finish.reason
