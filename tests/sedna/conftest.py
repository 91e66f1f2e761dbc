"""A Sedna worker of a few lines, which does on the wire what KubeEdge's library does, and a server for it."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from websockets.asyncio.client import ClientConnection, connect

from engram.federation.aggregator import Aggregator
from engram.federation.checkpoint import CheckpointStore
from engram.federation.history import History, RoundRow, WorkerState
from engram.federation.messages import ClassCounts, Heartbeat, Reject, Tensors
from engram.federation.outcome import Outcome
from engram.federation.settings import Settings
from engram.federation.tokens import authenticator
from engram.run.observers import Silent
from engram.sedna.blind import BlindLearner
from engram.sedna.dialect import Dialect
from engram.sedna.server import serve
from engram.spec.training import Aggregation, Evaluation

KEY = b"a key of the tests"
WAIT_SECONDS = 20.0


class Events(Silent):
    """An observer that writes down what tests ask for."""

    def __init__(self) -> None:
        self.rejected_for: list[str] = []
        self.states: dict[str, WorkerState] = {}
        self.rounds: list[RoundRow] = []
        self.beats: dict[str, Heartbeat] = {}
        self.losses: dict[str, float] = {}
        self._changed = threading.Condition()

    def _note(self, change: Callable[[], object]) -> None:
        with self._changed:
            change()
            self._changed.notify_all()

    def wait_for(self, what: Callable[[], bool]) -> None:
        with self._changed:
            assert self._changed.wait_for(what, WAIT_SECONDS)

    def rejected(self, worker: str, reject: Reject) -> None:
        self._note(lambda: self.rejected_for.append(reject.reason))

    def worker_changed(self, worker: str, state: WorkerState) -> None:
        self._note(lambda: self.states.update({worker: state}))

    def round_closed(self, row: RoundRow, history: History) -> None:
        self._note(lambda: self.rounds.append(row))

    def heartbeat(self, worker: str, beat: Heartbeat) -> None:
        self._note(lambda: self.beats.update({worker: beat}))
        if beat.loss is not None:
            self._note(lambda: self.losses.update({worker: beat.loss or 0.0}))


class Known(BlindLearner):
    """An aggregator's side that knows a model of two arrays and evaluates it."""

    def begin_task(self, task: int, weights: Tensors | None) -> Tensors:
        if weights is not None:
            return weights
        return {"w": np.zeros((2, 3), np.float32), "b": np.zeros(2, np.float32)}

    def seen(self, task: int) -> tuple[int, ...]:
        return (0, 1)

    def evaluate(self, task: int, weights: Tensors) -> ClassCounts:
        return ClassCounts({0: 5, 1: 4}, {0: 5, 1: 5})


def settings(
    workers: int = 2, rounds: int = 2, aggregation: dict[str, Any] | None = None, **changes: Any
) -> Settings:
    values: dict[str, Any] = {
        "job_digest": "job",
        "seed": 7,
        "workers": tuple(f"trainworker-edge-{index}" for index in range(workers)),
        "rounds": (rounds,),
        "aggregation": Aggregation.model_validate(aggregation or {}),
        "evaluation": Evaluation(),
        "consolidates": False,
        "groups": ("edge",),
        "tick_seconds": 0.02,
        "linger_seconds": 0.5,
        **changes,
    }
    return Settings(**values)


class Running:
    """A server in a thread."""

    def __init__(
        self,
        settings: Settings,
        learner: BlindLearner,
        store: CheckpointStore | None = None,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self.events = Events()
        self.aggregator = Aggregator(settings, learner, store, self.events)
        self.dialect = Dialect(self.aggregator)
        self.outcome: Outcome | None = None
        self._clock = clock
        self._port = 0
        self._listening, self._loop = threading.Event(), asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    @property
    def port(self) -> int:
        assert self._listening.wait(WAIT_SECONDS)
        return self._port

    def __enter__(self) -> Running:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()
        self.result()

    def until_in(self, *workers: str) -> None:
        """Wait until the updates of `workers` are in."""
        self.events.wait_for(lambda: all(self.events.states[worker] == "connected" for worker in workers))

    def until_closed(self, rounds: int) -> None:
        """Wait until so many rounds are closed."""
        self.events.wait_for(lambda: len(self.events.rounds) >= rounds)

    def stop(self) -> None:
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)

    def result(self) -> Outcome:
        self._thread.join(WAIT_SECONDS)
        assert not self._thread.is_alive()
        assert self.outcome is not None
        return self.outcome

    def _run(self) -> None:
        def listening(port: int) -> None:
            self._port = port
            self._listening.set()

        try:
            self.outcome = self._loop.run_until_complete(
                serve(
                    self.dialect,
                    host="127.0.0.1",
                    port=0,
                    authenticate=authenticator(KEY, "uid"),
                    stop=self._stop,
                    listening=listening,
                    clock=self._clock,
                )
            )
        finally:
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.close()


class SednaClient:
    """Speaks as Sedna's library does: its loop stands still while it trains, so that it answers no ping."""

    def __init__(self, port: int, client_id: str, path: str = "/FedAvg", **headers: str) -> None:
        self.id = client_id
        self._loop = asyncio.new_event_loop()
        self.heard: list[dict[str, Any]] = []
        connecting = connect(
            f"ws://127.0.0.1:{port}{path}",
            max_size=16 * 1024 * 1024,
            additional_headers=headers or None,
            close_timeout=2,
        )
        try:
            self.socket: ClientConnection = self._do(connecting)
        except BaseException:
            self._loop.close()
            raise

    def _do(self, awaitable: Any) -> Any:
        async def bounded() -> Any:
            return await asyncio.wait_for(awaitable, WAIT_SECONDS)

        return self._loop.run_until_complete(bounded())

    def say(self, message: Any) -> None:
        self._do(self.socket.send(message if isinstance(message, str | bytes) else json.dumps(message)))

    def hear(self) -> dict[str, Any]:
        """Return the next message, whatever it is."""
        message: dict[str, Any] = json.loads(self._do(self.socket.recv()))
        self.heard.append(message)
        return message

    def subscribe(self) -> SednaClient:
        self.say({"type": "subscribe", "client_id": self.id})
        assert self.hear() == {"type": "subscribe", "client_id": self.id}
        return self

    def upload(self, weights: Any, samples: Any = 100, client: str | None = None) -> None:
        self.say(self.update(weights, samples, client))

    def update(self, weights: Any, samples: Any = 100, client: str | None = None) -> dict[str, Any]:
        return {
            "type": "update_weight",
            "client": self.id if client is None else client,
            "data": {"num_samples": samples, "weights": weights},
            "job_name": "job",
        }

    def weights(self) -> dict[str, Any]:
        """Return the next `recv_weight`; every other type is passed over, as the library does."""
        while (message := self.hear())["type"] != "recv_weight":
            continue
        return message

    def closing(self) -> tuple[int, str]:
        """Return code and reason with which the server ends the connection."""
        self._do(self.socket.wait_closed())
        return self.socket.close_code or 0, self.socket.close_reason or ""

    def vanish(self) -> None:
        """Leave without a closing frame."""
        self.socket.transport.abort()
        self._do(self.socket.wait_closed())

    def close(self) -> None:
        if not self._loop.is_closed():
            self.vanish()
            self._loop.close()


@pytest.fixture(autouse=True)
def _no_long_goodbyes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client here answers a closing frame only when it reads; nobody waits for that."""
    monkeypatch.setattr("engram.sedna.server.CLOSE_SECONDS", 0.2)


Connect = Callable[..., SednaClient]


@pytest.fixture
def client() -> Iterator[Connect]:
    made: list[SednaClient] = []

    def make(running: Running, client_id: str, **options: str) -> SednaClient:
        made.append(SednaClient(running.port, client_id, **options))
        return made[-1]

    yield make
    for each in made:
        each.close()


class Clock:
    """A clock that a test sets forward, so that no deadline needs a sleep."""

    def __init__(self) -> None:
        self._skipped = 0.0

    def skip(self, seconds: float) -> None:
        self._skipped += seconds

    def __call__(self) -> float:
        return time.monotonic() + self._skipped
