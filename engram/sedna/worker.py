"""A worker of engram's that speaks Sedna's dialect: it joins our aggregator or KubeEdge's.

Unlike Sedna's own client it answers pings while it trains, comes back after a cut with the update that nobody
has answered, and looks at what it is sent before it trains from it.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException
from websockets.sync.client import ClientConnection, connect

from engram.errors import (
    ConfigurationError,
    FederationError,
    NumericalError,
    ProtocolError,
    RefusedError,
    RetryError,
)
from engram.federation.messages import Tensors, Train, Update
from engram.federation.roles import LocalLearner
from engram.federation.validation import Unfit, check_finite
from engram.federation.websocket.backoff import Backoff
from engram.federation.websocket.wire import WORKER_HEADER, bearer
from engram.sedna import wire
from engram.sedna.controller import ControllerClient

POLL_SECONDS = 0.2
"""How often a waiting worker looks whether it is to stop."""
OPEN_SECONDS, PING_SECONDS, PONG_SECONDS = 10.0, 20.0, 120.0
FINAL_CODES = (wire.CLOSE_BAD_UPDATE, 1009, 4003)
"""Closing codes after which coming back would end the same way."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Peer:
    """Where the aggregator is and who this worker is to it."""

    worker: str
    job: str
    endpoints: Callable[[], Sequence[str]]
    """`host:port` or a URL; asked again before each attempt."""
    aggregation: str
    """The path of an endpoint that has none."""
    token: str = ""
    """Sent along; KubeEdge's aggregator does not look at it."""
    orphan_seconds: float = 3600.0


@dataclass(frozen=True)
class Start:
    """What the first round is trained from: Sedna's aggregator gives no model before that."""

    weights: Tensors
    seen: tuple[int, ...]


class _Session:
    """One worker process's part in the run, over all its connections."""

    def __init__(
        self,
        learner: LocalLearner,
        peer: Peer,
        start: Start,
        stop: threading.Event,
        controller: ControllerClient | None,
    ) -> None:
        self._learner, self._peer, self._stop, self._controller = learner, peer, stop, controller
        self._order = Train(1, 1, start.weights, start.seen)
        self._answer: tuple[Update, str] | None = None
        """The update of the open round and its text, until it is answered."""
        self._loss: float | None = None
        self._contact = time.monotonic()

    def run(self) -> str:
        """Return the reason of the end."""
        backoff = Backoff(f"{self._peer.worker}/sedna")
        while True:
            for endpoint in self._peer.endpoints():
                try:
                    with self._connected(url_of(endpoint, self._peer.aggregation)) as connection:
                        self._converse(connection)
                    return "complete"
                except ConnectionClosed as error:
                    self._why_closed(endpoint, error)
                except InvalidStatus as error:
                    self._why_refused(endpoint, error)
                except (OSError, WebSocketException) as error:
                    log.info("%s: %s", endpoint, error)
            silent = time.monotonic() - self._contact
            if silent >= self._peer.orphan_seconds:
                raise RetryError(f"no contact with the aggregator for {silent:.0f} s")
            self._look(backoff.next(silent))

    def _connected(self, url: str) -> ClientConnection:
        headers = {WORKER_HEADER: self._peer.worker}
        if self._peer.token:
            headers["Authorization"] = bearer(self._peer.token)
        return connect(
            url,
            additional_headers=headers,
            max_size=wire.upload_limit(self._order.weights),
            open_timeout=OPEN_SECONDS,
            ping_interval=PING_SECONDS,
            ping_timeout=PONG_SECONDS,
            close_timeout=1.0,
        )

    def _converse(self, connection: ClientConnection) -> None:
        """Take part until the last round; the connection's end raises."""
        connection.send(wire.subscribed(self._peer.worker))
        self._receive(connection)
        while True:
            connection.send(self._train())
            data = self._weights(connection)
            self._answer = None
            last = data.get("exit_flag") == "ok"
            self._report(last)
            if last:
                return

    def _train(self) -> str:
        """Return the open round's update, trained once."""
        if self._answer is None:
            update = self._learner.train(self._order, self._progress)
            if update.samples == 0:
                raise ConfigurationError(
                    f"{self._peer.worker} holds nothing to train on, and with Sedna's protocol nobody can "
                    "sit a round out",
                    field="spec.workers",
                    remedy="give every worker samples, or write protocol: engram",
                )
            try:
                check_finite(update.weights)
            except Unfit as error:
                raise NumericalError(f"{self._peer.worker}, round {self._order.round}: {error}") from error
            text = wire.upload(self._peer.worker, update.samples, update.weights, self._peer.job)
            self._answer, self._loss = (update, text), update.metrics.get("loss")
        return self._answer[1]

    def _weights(self, connection: ClientConnection) -> dict[str, Any]:
        """Wait for the next global model and take it over."""
        while True:
            message = self._receive(connection)
            if message.get("type") != "recv_weight":
                continue
            data = message.get("data")
            if not isinstance(data, dict) or not isinstance(data.get("weights"), list):
                raise ProtocolError("the aggregator sent recv_weight without weights")
            round = data.get("round_number")
            if not isinstance(round, int):
                raise ProtocolError("the aggregator sent recv_weight without a round_number")
            try:
                weights = wire.as_tensors(data["weights"], self._order.weights)
                check_finite(weights)
            except (wire.Unreadable, Unfit) as error:
                raise ProtocolError(f"the aggregator's model cannot be used: {error}") from error
            self._order = replace(self._order, round=round + 1, weights=weights)
            return data

    def _receive(self, connection: ClientConnection) -> dict[str, Any]:
        while True:
            try:
                value = json.loads(connection.recv(timeout=POLL_SECONDS))
            except TimeoutError:
                self._look(0)
                continue
            except (ValueError, RecursionError) as error:
                raise ProtocolError("the aggregator sent what is no JSON") from error
            self._contact = time.monotonic()
            return value if isinstance(value, dict) else {}

    def _look(self, seconds: float) -> None:
        if self._stop.wait(seconds):
            raise RetryError("told to stop")

    def _progress(self, share: float, loss: float) -> None:
        self._look(0)

    def _report(self, last: bool) -> None:
        if self._controller is not None:
            self._controller.report(self._order.round - 1, self._loss, last=last)

    def _why_closed(self, endpoint: str, error: ConnectionClosed) -> None:
        """Say why a connection ended. Raises when the next one would end so, too."""
        code, reason = (0, "") if error.rcvd is None else (error.rcvd.code, error.rcvd.reason)
        log.info("%s: %s", endpoint, error)
        if code in FINAL_CODES:
            kind = RefusedError if code == 4003 and "unauthorised" in reason else FederationError
            raise kind(f"the aggregator turned {self._peer.worker} away: {reason or code}")

    def _why_refused(self, endpoint: str, error: InvalidStatus) -> None:
        status = error.response.status_code
        if status in (401, 403):
            text = f"{endpoint} answered {status}: wrong token, or its aggregation has another name"
            raise RefusedError(text) from error
        log.info("%s: HTTP %s", endpoint, status)


def run_sedna_worker(
    learner: LocalLearner,
    peer: Peer,
    start: Start,
    stop: threading.Event,
    controller: ControllerClient | None = None,
) -> str:
    """Train for a Sedna aggregator until its last round; return the reason of the end.

    Raises RefusedError and FederationError when it turns this worker away, RetryError when `stop` is set or
    after `orphan_seconds` without contact, ProtocolError for a model that does not fit, and what the learner
    raises.
    """
    return _Session(learner, peer, start, stop, controller).run()


def url_of(endpoint: str, aggregation: str) -> str:
    """Return the URL of `host:port`, or of a URL with or without a path of its own.

    Raises ConfigurationError for anything else.
    """
    url = endpoint if "://" in endpoint else f"ws://{endpoint}"
    parts = urlsplit(url)
    if parts.scheme not in ("ws", "wss") or not parts.hostname:
        raise ConfigurationError(
            f"{endpoint!r} is no endpoint", remedy="write HOST:PORT or ws://HOST:PORT/Name"
        )
    return url if parts.path.strip("/") else f"{url.rstrip('/')}/{aggregation}"


def sedna_name(aggregation: str) -> str:
    """Return an aggregation's name as Sedna spells it: `FedAvg`, or the class of a dotted path."""
    known = {"fedavg": "FedAvg", "fedavgm": "FedAvgM", "fedadam": "FedAdam"}
    name = aggregation.rpartition(":")[2]
    if name != aggregation:
        return name
    return known.get(name) or "".join(part.capitalize() for part in name.split("-"))
