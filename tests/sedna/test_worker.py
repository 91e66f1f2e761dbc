"""Our worker in Sedna's dialect: against our aggregator, and against one that behaves as KubeEdge's."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from websockets.asyncio.server import ServerConnection, serve

from engram.errors import (
    ConfigurationError,
    EngramError,
    FederationError,
    NumericalError,
    ProtocolError,
    RefusedError,
    RetryError,
)
from engram.federation.checkpoint import CheckpointStore
from engram.federation.messages import (
    ClassCounts,
    Consolidate,
    Consolidated,
    Evaluate,
    Tensors,
    Train,
    Update,
)
from engram.federation.roles import Progress
from engram.sedna.worker import Peer, Start, run_sedna_worker, sedna_name, url_of
from engram.spec.tokens import worker_token
from tests.sedna.conftest import KEY, Known, Running, settings

START = Start({"w": np.zeros((2, 3), np.float32), "b": np.zeros(2, np.float32)}, (0, 1))


class Adder:
    """A learner that adds its number to every weight."""

    split_digest, device = "split", "cpu"

    def __init__(self, number: float, samples: int = 10) -> None:
        self.number, self.samples = np.float32(number), samples
        self.trained: list[int] = []
        self.before: Callable[[Train], None] = lambda order: None

    def restore(self, state: bytes) -> None:
        raise AssertionError("Sedna's workers have no state")

    def train(self, order: Train, progress: Progress) -> Update:
        self.before(order)
        progress(0.5, 1.0)
        self.trained.append(order.round)
        weights: Tensors = {name: array + self.number for name, array in order.weights.items()}
        return Update(order.task, order.round, self.samples, weights if self.samples else {}, {"loss": 0.5})

    def consolidate(self, order: Consolidate) -> Consolidated:
        raise AssertionError("Sedna's workers know no tasks")

    def evaluate(self, order: Evaluate) -> ClassCounts:
        raise AssertionError("Sedna's workers are not asked")


class Odd(Adder):
    """Sends half of the model."""

    def train(self, order: Train, progress: Progress) -> Update:
        update = super().train(order, progress)
        return replace(update, weights={"w": update.weights["w"]})


class Working:
    """A worker in a thread."""

    def __init__(self, learner: Adder, endpoint: Callable[[], str], name: str, token: str = "") -> None:
        self.stop = threading.Event()
        self.error: EngramError | None = None
        self.reason = ""
        self._peer = Peer(name, "job", lambda: (endpoint(),), "FedAvg", token, 30.0)
        self._learner = learner
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.reason = run_sedna_worker(self._learner, self._peer, START, self.stop)
        except EngramError as error:
            self.error = error

    def end(self) -> str:
        self._thread.join(20)
        assert not self._thread.is_alive()
        if self.error is not None:
            raise self.error
        return self.reason


def test_two_workers_train_with_our_aggregator() -> None:
    with Running(settings(2, 3), Known("split")) as running:
        learners = [Adder(1.0), Adder(3.0)]
        workers = [
            Working(learner, lambda: f"127.0.0.1:{running.port}", f"trainworker-edge-{index}")
            for index, learner in enumerate(learners)
        ]
        assert [worker.end() for worker in workers] == ["complete", "complete"]
        outcome = running.result()
    assert [learner.trained for learner in learners] == [[1, 2, 3]] * 2
    assert np.array_equal(outcome.weights["w"], np.full((2, 3), 6, np.float32))
    assert outcome.weights["w"].dtype == np.float32
    assert running.events.rejected_for == []


def test_workers_outlive_a_restart_of_the_aggregator(tmp_path: Path) -> None:
    held = threading.Event()
    with Running(settings(1, 3), Known("split"), CheckpointStore(tmp_path)) as first:
        learner = Adder(1.0)
        running = [first]

        def hold(order: Train) -> None:
            assert order.round < 3 or held.wait(20)

        learner.before = hold
        worker = Working(learner, lambda: f"127.0.0.1:{running[0].port}", "trainworker-edge-0")
        first.until_closed(2)
        first.stop()
        assert first.result().reason == "suspended"
    with Running(settings(1, 3), Known("split"), CheckpointStore(tmp_path)) as second:
        running[0] = second
        assert second.port
        held.set()
        assert worker.end() == "complete"
        outcome = second.result()
    assert np.array_equal(outcome.weights["b"], np.full(2, 3, np.float32))
    # The update of round 3 is refused, because the restarted aggregator cannot know that it is one.
    assert learner.trained == [1, 2, 3, 3]


def test_a_worker_that_is_told_to_stop_stops() -> None:
    with Running(settings(2, 1), Known("split")) as running:
        worker = Working(Adder(1.0), lambda: f"127.0.0.1:{running.port}", "trainworker-edge-0")
        running.events.wait_for(lambda: "trainworker-edge-0" in running.events.states)
        worker.stop.set()
        with pytest.raises(RetryError, match="told to stop"):
            worker.end()


def test_a_worker_without_samples_says_that_it_cannot_take_part() -> None:
    with Running(settings(1, 1), Known("split")) as running:
        worker = Working(Adder(1.0, samples=0), lambda: f"127.0.0.1:{running.port}", "trainworker-edge-0")
        with pytest.raises(ConfigurationError, match="nobody can sit a round out"):
            worker.end()


def test_a_worker_that_is_turned_away_says_why() -> None:
    with Running(settings(1, 1), Known("split")) as running:
        broken = Working(Adder(float("nan")), lambda: f"127.0.0.1:{running.port}", "trainworker-edge-0")
        with pytest.raises(NumericalError, match="trainworker-edge-0, round 1: w holds values"):
            broken.end()
        odd = Working(Odd(1.0), lambda: f"127.0.0.1:{running.port}", "trainworker-edge-0")
        with pytest.raises(FederationError, match=r"shape: 1 arrays, the model has 2"):
            odd.end()
        wrong = Working(Adder(1.0), lambda: f"ws://127.0.0.1:{running.port}/Other", "trainworker-edge-0")
        with pytest.raises(RefusedError, match="answered 403"):
            wrong.end()
        liar = Working(Adder(1.0), lambda: f"127.0.0.1:{running.port}", "trainworker-edge-0", "wrong")
        with pytest.raises(RefusedError, match="answered 401"):
            liar.end()


def test_a_token_that_is_right_is_taken() -> None:
    token = worker_token(KEY, "uid", "trainworker-edge-0")
    with Running(settings(1, 1), Known("split")) as running:
        worker = Working(Adder(1.0), lambda: f"127.0.0.1:{running.port}", "trainworker-edge-0", token)
        assert worker.end() == "complete"


class Golden:
    """An aggregator for one worker that says what KubeEdge's says, other clients' noise included."""

    def __init__(self, broadcasts: list[Any]) -> None:
        self.uploads: list[dict[str, Any]] = []
        self.port = 0
        self._broadcasts = broadcasts
        self._ready, self._done = threading.Event(), asyncio.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=lambda: self._loop.run_until_complete(self._serve()))

    def __enter__(self) -> Golden:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *error: object) -> None:
        self._loop.call_soon_threadsafe(self._done.set)
        self._thread.join(10)
        self._loop.close()

    async def _serve(self) -> None:
        async with serve(self._talk, "127.0.0.1", 0) as server:
            self.port = next(iter(server.sockets)).getsockname()[1]
            self._ready.set()
            await self._done.wait()

    async def _talk(self, socket: ServerConnection) -> None:
        assert socket.request is not None
        assert socket.request.path == "/FedAvg"
        subscribe = json.loads(await socket.recv())
        await socket.send(json.dumps(subscribe))
        await socket.send(json.dumps({"type": "CLIENT_JOIN", "data": "w9"}))
        await socket.send(json.dumps({"type": "subscribe", "client_id": "w9"}))
        for broadcast in self._broadcasts:
            self.uploads.append(json.loads(await socket.recv()))
            await socket.send(broadcast if isinstance(broadcast, str) else json.dumps(broadcast))
        await socket.wait_closed()


def broadcast(round: int, flag: str, weights: Any) -> dict[str, Any]:
    data = {"total_sample": 20, "round_number": round, "weights": weights, "exit_flag": flag}
    return {"type": "recv_weight", "client": "w9", "data": data, "job_name": "job", "round_number": round}


def test_our_worker_trains_with_an_aggregator_such_as_kubeedges() -> None:
    models = [
        broadcast(1, "continue", [[[2.0] * 3] * 2, [2, 2]]),
        broadcast(2, "ok", [[[5.0] * 3] * 2, [5.0] * 2]),
    ]
    with Golden(models) as golden:
        learner = Adder(1.0)
        assert Working(learner, lambda: f"127.0.0.1:{golden.port}", "w0").end() == "complete"
    assert learner.trained == [1, 2]
    assert [list(upload) for upload in golden.uploads] == [["type", "client", "data", "job_name"]] * 2
    assert golden.uploads[1] == {
        "type": "update_weight",
        "client": "w0",
        "data": {"num_samples": 10, "weights": [[[3.0] * 3] * 2, [3.0, 3.0]]},
        "job_name": "job",
    }


BAD_MODELS: dict[str, Any] = {
    "another shape": broadcast(1, "continue", [[[2.0] * 3], [2.0, 2.0]]),
    "not finite": json.dumps(broadcast(1, "continue", [[[2.0] * 3] * 2, [2.0, 7.5]])).replace("7.5", "NaN"),
    "no weights": {"type": "recv_weight", "data": {"round_number": 1}},
    "no round": {"type": "recv_weight", "data": {"weights": [[[2.0] * 3] * 2, [2.0, 2.0]]}},
    "no JSON": "model",
}


@pytest.mark.parametrize("message", BAD_MODELS.values(), ids=BAD_MODELS.keys())
def test_a_model_that_does_not_fit_ends_the_worker(message: Any) -> None:
    with Golden([message]) as golden:
        worker = Working(Adder(1.0), lambda: f"127.0.0.1:{golden.port}", "w0")
        with pytest.raises(ProtocolError):
            worker.end()


@pytest.mark.parametrize(
    ("endpoint", "url"),
    [
        ("host:7363", "ws://host:7363/FedAvg"),
        ("ws://host:7363/", "ws://host:7363/FedAvg"),
        ("wss://host/Own", "wss://host/Own"),
    ],
)
def test_urls(endpoint: str, url: str) -> None:
    assert url_of(endpoint, "FedAvg") == url


def test_no_url() -> None:
    with pytest.raises(ConfigurationError, match="is no endpoint"):
        url_of("http://host", "FedAvg")


@pytest.mark.parametrize(
    ("ours", "theirs"), [("fedavg", "FedAvg"), ("trimmed-mean", "TrimmedMean"), ("my.rules:Own", "Own")]
)
def test_names(ours: str, theirs: str) -> None:
    assert sedna_name(ours) == theirs
