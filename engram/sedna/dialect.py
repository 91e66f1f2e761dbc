"""An aggregator that speaks Sedna's dialect: client messages in, frames and closings out. It knows no socket.

Below it the same round machine, validation, sum and checkpoint run as for engram's own workers. A job has one
task; a round's broadcast is the next round's order, and the last one carries the final model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from engram.errors import EngramError
from engram.federation.aggregator import Aggregator
from engram.federation.messages import Ack, Finish, Heartbeat, Hello, Outgoing, Reject, Train, Update
from engram.federation.validation import Unfit, check_finite
from engram.federation.versions import PROTOCOL
from engram.federation.websocket.wire import CLOSE_BAD_MESSAGE, CLOSE_REFUSED, CLOSE_REPLACED
from engram.sedna import wire
from engram.sedna.client_state import Client, Received
from engram.sedna.places import Places

MOST_TOLD = 100
"""With so many clients nobody hears of newcomers: no client acts upon it, and a thousand of them would be
told a million times.
"""
LEAST_BOUND, LEEWAY = 2**16, 2**10
"""Samples that any worker may hold, and how many times as many as the first one to say so."""


@dataclass(frozen=True)
class Close:
    """End a connection."""

    code: int
    reason: str


Out: TypeAlias = str | Close


class Effect(NamedTuple):
    """What to send on a connection, or that it ends."""

    client: Client
    out: Out


class Refused(Exception):
    """The connection must end; `reason` is one of `Rejection`."""

    def __init__(self, reason: str, text: str, code: int) -> None:
        super().__init__(text)
        self.reason, self.code = reason, code


class Dialect:
    """One run, as Sedna's clients see it. Used from one thread at a time."""

    def __init__(
        self,
        aggregator: Aggregator,
        most_samples: int = wire.MOST_SAMPLES,
        shares: Mapping[str, int] | None = None,
    ) -> None:
        """`most_samples` bounds what an update may weigh; `shares` says how much engram's own workers hold,
        which prove by their token that they are.
        """
        self.aggregator = aggregator
        self._most_samples, self._shares = most_samples, shares or {}
        self._places = Places(aggregator.settings.workers)
        self._clients: dict[str, Client] = {}
        """By worker."""
        self._opened = False
        """A round has been opened since this process started."""
        self._held: dict[str, int] = {}
        """What each worker's last update that counts was made from."""
        self._sized = (0, 0)
        """The round whose bounds are set: that whose first update is in."""
        self._last = ("", "")
        """Client and job name of the newest update that counts."""
        self._cached: tuple[wire.Head, str] | None = None

    @property
    def subscribed(self) -> list[str]:
        """Ids of those who are there; any thread may ask."""
        return [client.id for client in tuple(self._clients.values())]

    # What a transport calls.

    def message(self, client: Client, text: str | bytes, seconds: float, now: float) -> list[Effect]:
        """Take in a frame, which took `seconds` to arrive, and return what to send."""
        try:
            return self._take(client, text, seconds, now)
        except wire.Unreadable as error:
            code = CLOSE_BAD_MESSAGE if error.reason == "protocol" else wire.CLOSE_BAD_UPDATE
            return self._closed(client, error.reason, str(error), code)
        except Unfit as error:
            return self._closed(client, error.reason, str(error), wire.CLOSE_BAD_UPDATE)
        except Refused as error:
            return self._closed(client, error.reason, str(error), error.code)

    def gone(self, client: Client, now: float) -> list[Effect]:
        """Note that a connection has ended."""
        if self._clients.get(client.worker) is not client:
            return []
        del self._clients[client.worker]
        return self._act(self.aggregator.disconnect(client.worker, now), now)

    def tick(self, now: float) -> list[Effect]:
        """Let time pass. A connection that the kernel keeps alive is a worker that is there: it may train
        for hours without a byte, so its heartbeats are ours.
        """
        for worker, client in self._clients.items():
            self.aggregator.heard(worker, now)
            if now - client.beat >= self.aggregator.settings.heartbeat_seconds:
                client.beat = now
                beat = Heartbeat("idle" if client.waits else "training")
                self.aggregator.receive(worker, beat, now)
        return self._act(self.aggregator.tick(now), now)

    def suspend(self, now: float) -> list[Effect]:
        """Stop with everything durable."""
        return self._act(self.aggregator.suspend(now), now)

    def fail(self, error: EngramError, now: float) -> list[Effect]:
        """End the run."""
        return self._act(self.aggregator.fail(error), now)

    def too_large(self, client: Client, text: str) -> None:
        """Count a message that was too large to be read."""
        self.aggregator.malformed(client.worker, "too-large", text)

    def report(self, name: str, beat: Heartbeat, now: float) -> bool:
        """Take in what a worker tells its Local Controller; return whether it is one of the run's."""
        worker = self._places.known(name)
        if worker is None:
            return False
        self.aggregator.receive(worker, beat, now)
        return True

    # What clients say.

    def _take(self, client: Client, text: str | bytes, seconds: float, now: float) -> list[Effect]:
        message = wire.parse(text)
        if isinstance(message, wire.Subscribe):
            return self._subscribe(client, message, now)
        if not client.id:
            raise wire.Unreadable("protocol", "no subscribe before the first message")
        if self._clients.get(client.worker) is not client:
            return []
        if isinstance(message, wire.Forged):
            self.aggregator.malformed(client.worker, "protocol", f"{client.id} sent recv_weight")
            return []
        if message.client != client.id:
            text = f"{client.id} speaks for {message.client}"
            raise Refused("unauthorised", text, CLOSE_REFUSED)
        return self._upload(client, message, Received.of(text, seconds), now)

    def _subscribe(self, client: Client, message: wire.Subscribe, now: float) -> list[Effect]:
        if client.id:
            if message.client_id == client.id:
                return [Effect(client, wire.subscribed(client.id))]
            raise wire.Unreadable("protocol", f"already subscribed as {client.id}")
        worker = self._places.of(message.client_id, self._clients)
        if worker is None:
            number = len(self.aggregator.settings.workers)
            raise Refused("unauthorised", f"all {number} workers of this job are there", CLOSE_REFUSED)
        effects: list[Effect] = []
        before = self._clients.get(worker)
        if before is not None:
            if client.trusted != worker:
                text = f"{message.client_id} is connected already: give each worker its own WORKER_NAME"
                raise Refused("unauthorised", text, CLOSE_REFUSED)
            effects.append(Effect(before, Close(CLOSE_REPLACED, "replaced")))
        self._held.pop(worker, None)
        client.id, client.worker = message.client_id or worker, worker
        others = [other for other in self._clients.values() if other is not before]
        if len(others) >= MOST_TOLD:
            others = []
        effects += [Effect(other, wire.joined(client.id)) for other in others]
        self._clients[worker] = client
        effects += [Effect(other, wire.subscribed(client.id)) for other in (*others, client)]
        hello = Hello(
            worker=worker,
            attempt=1,
            protocol=PROTOCOL,
            job_digest=self.aggregator.settings.job_digest,
            split_digest=self.aggregator.split_digest,
            samples=self._share(client) or self._most_samples,
            device="",
            trouble="" if client.id == worker else f"its Sedna client is {client.id}",
        )
        return effects + self._act(self.aggregator.connect(worker, hello, now), now)

    def _upload(self, client: Client, upload: wire.Upload, received: Received, now: float) -> list[Effect]:
        if client.waits or client.repeats(received):
            self.aggregator.malformed(client.worker, "duplicate", f"{client.id} sent its update again")
            return []
        client.last = received
        if client.finished:
            client.waits = True
            return []
        if client.order is None and not self._opened:
            client.parked, client.waits = upload, True
            return []
        if client.order is None or client.trains != client.order.round:
            return self._late(client, now)
        return self._accept(client, client.order, upload, now)

    def _late(self, client: Client, now: float) -> list[Effect]:
        """Refuse an update of a round that is closed; what its client needs is the newest model."""
        self.aggregator.malformed(client.worker, "late", f"{client.id} trained an older model")
        client.waits = True
        return [] if client.order is None else self._deliver(client, client.order, now)

    def _accept(self, client: Client, order: Train, upload: wire.Upload, now: float) -> list[Effect]:
        aggregator = self.aggregator
        tensors = wire.as_tensors(upload.weights, aggregator.weights)
        check_finite(tensors)
        if self._sized != (order.task, order.round):
            aggregator.adopt(tensors, self._bounds(upload.samples))
        update = Update(order.task, order.round, upload.samples, tensors)
        if client.last is not None:
            aggregator.transferred(client.worker, "up", client.last.size, update)
        outgoing = aggregator.receive(client.worker, update, now)
        answer = next((message for worker, message in outgoing if worker == client.worker), None)
        if isinstance(answer, Reject):
            raise Unfit(answer.reason, answer.message)
        self._sized = order.task, order.round
        return self._act(outgoing, now, upload)

    def _bounds(self, samples: int) -> dict[str, int]:
        """Return what each worker may weigh this round, now that the first one weighs `samples`: as much as
        it did before, or far more than that one. The tighter, the finer the grid of the sum.
        """
        most = min(self._most_samples, max(LEAST_BOUND, LEEWAY * samples))
        bounds = {worker: self._held.get(worker, most) for worker in self.aggregator.settings.workers}
        shares = {worker: self._share(client) for worker, client in self._clients.items()}
        return {worker: shares.get(worker) or bound for worker, bound in bounds.items()}

    def _share(self, client: Client) -> int | None:
        """Return what the client holds where that is known: with our own workers the sum is the same as with
        our own protocol, bit for bit.
        """
        return self._shares.get(client.worker) if client.trusted == client.worker else None

    # What the aggregator says.

    def _act(self, outgoing: list[Outgoing], now: float, upload: wire.Upload | None = None) -> list[Effect]:
        effects: list[Effect] = []
        for worker, message in outgoing:
            client = self._clients.get(worker)
            if client is None:
                continue
            if isinstance(message, Train):
                effects += self._order(client, message, now)
            elif isinstance(message, Ack):
                client.waits, client.order = True, None
                if upload is not None:
                    self._last = (client.id, upload.job_name)
                    self._held[worker] = upload.samples
            elif isinstance(message, Finish):
                effects.append(self._finish(client, message))
        # A worker that is left behind learns nothing of a round anew: what goes out is durable before.
        self.aggregator.settle()
        return effects

    def _order(self, client: Client, order: Train, now: float) -> list[Effect]:
        """Note the open round; its weights go to a client that reads."""
        self._opened = True
        client.order = order
        upload, client.parked = client.parked, None
        if not client.waits:
            return []
        if upload is not None and client.trains == order.round:
            return self._unpark(client, order, upload, now)
        if upload is not None:
            return self._late(client, now)
        return self._deliver(client, order, now)

    def _unpark(self, client: Client, order: Train, upload: wire.Upload, now: float) -> list[Effect]:
        client.waits = False
        try:
            return self._accept(client, order, upload, now)
        except wire.Unreadable as error:
            return self._closed(client, error.reason, str(error), wire.CLOSE_BAD_UPDATE)
        except Unfit as error:
            return self._closed(client, error.reason, str(error), wire.CLOSE_BAD_UPDATE)

    def _deliver(self, client: Client, order: Train, now: float) -> list[Effect]:
        """Give a client that reads the model of the last closed round."""
        client.trains, client.waits = order.round, False
        text = self._broadcast(order.round - 1, last=False)
        self.aggregator.transferred(client.worker, "down", len(text), order)
        self.aggregator.sent(order, now)
        return [Effect(client, text)]

    def _finish(self, client: Client, message: Finish) -> Effect:
        client.finished = True
        if message.reason != "complete":
            return Effect(client, Close(CLOSE_REFUSED, message.message))
        text = self._broadcast(self.aggregator.settings.rounds[-1], last=True)
        self.aggregator.transferred(client.worker, "down", len(text), message)
        return Effect(client, text)

    def _broadcast(self, round: int, *, last: bool) -> str:
        """Return the text that closes `round`, made once for all."""
        rows = self.aggregator.history.rounds
        parts = rows[-1].workers.values() if rows else ()
        total = sum(part.samples for part in parts if part.outcome == "accepted")
        head = wire.Head(*self._last, total, round, last)
        if self._cached is None or self._cached[0] != head:
            self._cached = (head, wire.broadcast(head, self.aggregator.weights))
        return self._cached[1]

    def _closed(self, client: Client, reason: str, text: str, code: int) -> list[Effect]:
        """Count what is wrong with a client and end its connection."""
        self.aggregator.malformed(client.worker, reason, text)
        return [Effect(client, Close(code, f"{reason}: {text}"))]
