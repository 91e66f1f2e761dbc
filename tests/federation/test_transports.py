"""One contract for both transports: the same job gives the same weights and history, whatever goes wrong."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engram.errors import EngramError, FederationError, NumericalError, RetryError
from engram.federation.aggregator import Aggregator
from engram.federation.checkpoint import CheckpointStore
from engram.federation.inprocess import run_in_process
from engram.federation.messages import Tensors, Train
from engram.federation.outcome import Outcome
from engram.federation.tokens import authenticator
from engram.federation.websocket.client import run_worker
from engram.federation.websocket.server import serve
from engram.spec.tokens import worker_token

KEY = b"a key of the tests"
A, B, C = (f"trainworker-edge-{index}" for index in range(3))
MakeFederation = Callable[..., Any]
SameBits = Callable[[Tensors, Tensors], bool]


class Killed(Exception):
    """Stands for SIGKILL: nothing of engram's knows it."""


class FastClock:
    """A clock that runs a thousand times as fast, or stands still, so that no deadline needs a sleep."""

    def __init__(self) -> None:
        self.running = True
        self._stopped_at = 0.0

    def __call__(self) -> float:
        if self.running:
            self._stopped_at = 1e9 + 1000 * time.monotonic()
        return self._stopped_at


class InProcess:
    """Drives a run without sockets; a killed worker or aggregator is a restart of all from the checkpoint."""

    def run(
        self, federation: Any, learners: dict[str, Any], stop: Callable[[], bool] | None = None
    ) -> Outcome:
        while True:
            try:
                return run_in_process(
                    federation.aggregator(), learners, stop or (lambda: False), federation.residuals_of
                )
            except Killed:
                for name in learners:
                    learners[name] = revived(federation, learners[name])


class WebSocket:
    """Drives a run over loopback; workers are threads that are started again when they are killed."""

    def __init__(self) -> None:
        self.clock = FastClock()
        self.errors: dict[str, Exception] = {}
        self.reasons: dict[str, str] = {}
        self.drains = 0
        """So many times an aggregator that was stopped is followed by another one."""
        self._stopped = threading.Event()
        self._port = 0
        self._listening = threading.Event()
        self._threads: list[threading.Thread] = []

    def run(
        self, federation: Any, learners: dict[str, Any], stop: Callable[[], bool] | None = None
    ) -> Outcome:
        return asyncio.run(self._run(federation, learners, stop))

    async def _run(
        self, federation: Any, learners: dict[str, Any], stop: Callable[[], bool] | None
    ) -> Outcome:
        started: set[str] = set()
        stopping = asyncio.Event()
        try:
            while True:
                serving = asyncio.create_task(self._serve(federation.aggregator(), stopping))
                try:
                    while not serving.done():
                        for name in [name for name in learners if name not in started]:
                            started.add(name)
                            self._start(federation, name, learners)
                        if stop is not None and stop():
                            stopping.set()
                        await asyncio.wait({serving}, timeout=0.01)
                    if serving.result().reason == "suspended" and self.drains:
                        self.drains -= 1
                        stopping.clear()
                        continue
                    return serving.result()
                except Killed:
                    continue
        finally:
            if stopping.is_set():
                self._stopped.set()
            for thread in self._threads:
                await asyncio.to_thread(thread.join)

    async def _serve(self, aggregator: Aggregator, stop: asyncio.Event) -> Outcome:
        """Serve until the end; when the aggregator is killed, its connections break without a word."""

        def listening(port: int) -> None:
            self._port = port
            self._listening.set()

        return await serve(
            aggregator,
            host="127.0.0.1",
            port=self._port,
            authenticate=authenticator(KEY, "uid"),
            stop=stop,
            listening=listening,
            clock=self.clock,
        )

    def _start(self, federation: Any, name: str, learners: dict[str, Any]) -> None:
        def work() -> None:
            for attempt in range(5):
                try:
                    assert self._listening.wait(30)
                    self.reasons[name] = run_worker(
                        learners[name],
                        worker=name,
                        job_digest="job",
                        endpoints=[f"127.0.0.1:{self._port}"],
                        token=worker_token(KEY, "uid", name),
                        attempt=attempt,
                        orphan_seconds=30,
                        stop=self._stopped,
                        packer=federation.packer_of(name),
                    )
                    return
                except Killed:
                    learners[name] = revived(federation, learners[name])
                except EngramError as error:
                    self.errors[name] = error
                    return

        thread = threading.Thread(target=work, name=name)
        self._threads.append(thread)
        thread.start()


def revived(federation: Any, learner: Any) -> Any:
    """Return a learner as a new process would make it, that will not be killed again."""
    return federation.workers()[learner.worker]


Transport = InProcess | WebSocket


@pytest.fixture(params=[InProcess, WebSocket])
def transport(request: pytest.FixtureRequest) -> Transport:
    made: Transport = request.param()
    return made


@pytest.fixture
def expected(make_federation: MakeFederation) -> Callable[..., Outcome]:
    """Return what a job gives in process when nothing goes wrong."""

    def run(**settings: Any) -> Outcome:
        federation = make_federation(**settings)
        return run_in_process(federation.aggregator(), federation.workers(), lambda: False)

    return run


def rows_of(outcome: Outcome) -> list[Any]:
    """Return the history without times."""
    rounds = [row.model_dump(exclude={"started", "seconds"}) for row in outcome.history.rounds]
    return rounds + [row.model_dump(exclude={"started", "seconds"}) for row in outcome.history.tasks]


def fast(make_federation: MakeFederation, store: CheckpointStore | None = None, **settings: Any) -> Any:
    # Silence is measured by a clock a thousand times too fast: 300 s, or a worker that waits for its turn, or
    # for a busy machine, becomes silent.
    patience = {"tick_seconds": 0.01, "linger_seconds": 1.0, "heartbeat_seconds": 1e5}
    return make_federation(store, **patience, **settings)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"aggregation": {"name": "fedadam"}},
        {"aggregation": {"name": "median"}},
        {"aggregation": {"clientFraction": 0.5}, "rounds": (3, 2)},
        {"evaluation": {"every": "round"}},
        {"evaluation": {"location": "workers", "every": "round"}},
        {"rounds": (1,), "workers": 1},
        {"aggregation": {"compression": "float16"}, "evaluation": {"location": "workers", "every": "round"}},
        {"aggregation": {"compression": "int8", "name": "fedadam"}},
        {"aggregation": {"compression": "topk", "topkShare": 0.2, "name": "median"}, "rounds": (3, 3)},
        {"aggregation": {"compression": "topk", "clientFraction": 0.5}, "rounds": (3, 3)},
    ],
    ids=[
        *("fedavg", "fedadam", "median", "sampled", "every-round", "on-workers", "one-worker"),
        *("float16", "int8", "topk", "topk-sampled"),
    ],
)
def test_a_run_gives_the_same_bits_history_and_bytes(
    transport: Transport,
    make_federation: MakeFederation,
    expected: Callable[..., Outcome],
    same_bits: SameBits,
    in_pieces: None,
    settings: dict[str, Any],
) -> None:
    federation = fast(make_federation, staging_slots=1, staging_bytes=0, **settings)
    outcome = transport.run(federation, federation.workers())
    wanted = expected(**settings)
    assert (outcome.reason, outcome.message) == ("complete", "")
    assert same_bits(outcome.weights, wanted.weights)
    assert rows_of(outcome) == rows_of(wanted)
    assert set(federation.observer.states.values()) == {"finished"}
    assert all(row.bytes_down > 100 for row in outcome.history.tasks[-1].workers.values())
    if isinstance(transport, WebSocket):
        assert set(transport.reasons.values()) == {"complete"}


def test_an_algorithm_that_wants_the_workers_models_gets_them(
    transport: Transport, make_federation: MakeFederation
) -> None:
    federation = fast(make_federation, rounds=(1,))
    federation.wants_models = True
    learners = federation.workers()
    learners[B].samples_of = lambda order: 0
    outcome = transport.run(federation, learners)
    (updates,) = federation.head.models
    assert {name: update.samples for name, update in updates.items()} == {A: 15, B: 0, C: 25}
    sums = 15 * updates[A].weights["head.weight"] + 25 * updates[C].weights["head.weight"]
    assert np.allclose(outcome.weights["head.weight"], sums / 40, atol=1e-6)
    with pytest.raises(ValueError, match="read-only"):
        updates[A].weights["head.weight"][:] = 0


@pytest.mark.parametrize("rule", ["fedavg", "fedadam"])
def test_a_buffer_of_all_workers_gives_the_bits_of_rounds_that_wait(
    transport: Transport,
    make_federation: MakeFederation,
    expected: Callable[..., Outcome],
    same_bits: SameBits,
    rule: str,
) -> None:
    federation = fast(make_federation, aggregation={"name": rule, "buffer": {"size": 3}})
    outcome = transport.run(federation, federation.workers())
    assert outcome.reason == "complete"
    assert same_bits(outcome.weights, expected(aggregation={"name": rule}).weights)
    parts = [part for row in outcome.history.rounds for part in row.workers.values()]
    assert [part.metrics["staleness"] for part in parts] == [0.0] * 12


def staleness_of(outcome: Outcome) -> list[dict[str, float]]:
    """Return who is in each round, and how many rounds behind."""
    assert not any(row.degraded for row in outcome.history.rounds)
    return [
        {worker: part.metrics["staleness"] for worker, part in row.workers.items()}
        for row in outcome.history.rounds
    ]


def test_in_process_the_workers_of_a_buffer_take_turns(make_federation: MakeFederation) -> None:
    federation = make_federation(rounds=(3, 1), aggregation={"buffer": {"size": 2}})
    outcome = InProcess().run(federation, federation.workers())
    assert staleness_of(outcome) == [{A: 0, B: 0}, {A: 0, C: 1}, {B: 1, A: 0}, {A: 0, B: 0}]
    assert all(set(row.workers) == {A, B, C} for row in outcome.history.tasks)


def test_a_slow_worker_counts_in_a_later_round(make_federation: MakeFederation) -> None:
    federation = fast(make_federation, rounds=(3, 1), aggregation={"buffer": {"size": 2}})
    learners = federation.workers()
    closed = {round: threading.Event() for round in (1, 2)}

    def wait(order: Train, name: str) -> None:
        """C is slow in round 1; A waits in round 2 until it is closed by B and what C has trained."""
        if order.task == 1 and (name, order.round) in ((C, 1), (A, 2)):
            assert closed[order.round].wait(30)

    for name, learner in learners.items():
        learner.on_train = lambda order, name=name: wait(order, name)
    original = federation.aggregator

    def aggregator() -> Aggregator:
        made: Aggregator = original()
        federation.head.on_round = lambda task, round: closed[round].set() if round in closed else None
        return made

    federation.aggregator = aggregator
    outcome = WebSocket().run(federation, learners)
    assert outcome.reason == "complete"
    assert staleness_of(outcome)[:2] == [{A: 0, B: 0}, {B: 0, C: 1}]
    assert all(len(row.workers) == 2 for row in outcome.history.rounds)
    assert all(set(row.workers) == {A, B, C} for row in outcome.history.tasks)


def test_a_buffer_survives_a_killed_aggregator(
    transport: Transport, make_federation: MakeFederation, tmp_path: Path
) -> None:
    federation = fast(
        make_federation, CheckpointStore(tmp_path), rounds=(3, 2), aggregation={"buffer": {"size": 2}}
    )
    kills: list[int] = []
    original = federation.aggregator

    def aggregator() -> Aggregator:
        made: Aggregator = original()

        def kill(task: int, round: int) -> None:
            if len(kills) < 3:
                kills.append(round)
                # No last words, and nothing is heard any more: the process would be gone.
                made.fail = lambda error: []  # type: ignore[method-assign]
                made.receive = lambda worker, message, now: []  # type: ignore[method-assign]
                raise Killed

        federation.head.on_round = kill
        return made

    federation.aggregator = aggregator
    outcome = transport.run(federation, federation.workers())
    assert outcome.reason == "complete"
    rows = [(row.task, row.round) for row in outcome.history.rounds]
    assert rows == [(1, 1), (1, 2), (1, 3), (2, 1), (2, 2)]
    assert all(len(row.workers) == 2 for row in outcome.history.rounds)


def test_shared_groups_go_once_a_connection(transport: Transport, make_federation: MakeFederation) -> None:
    federation = fast(make_federation, rounds=(1, 3))
    outcome = transport.run(federation, federation.workers())
    down = [row.workers[A].bytes_down for row in outcome.history.rounds if row.task == 2]
    assert down[0] > down[1] == down[2]


@pytest.mark.parametrize("compression", ["none", "topk"])
@pytest.mark.parametrize("position", [(1, 1), (1, 2), (2, 1)])
def test_a_worker_killed_in_the_middle_of_a_round_is_replaced(
    transport: Transport,
    make_federation: MakeFederation,
    expected: Callable[..., Outcome],
    same_bits: SameBits,
    in_pieces: None,
    tmp_path: Path,
    position: tuple[int, int],
    compression: str,
) -> None:
    settings = {"aggregation": {"compression": compression}}
    federation = fast(make_federation, CheckpointStore(tmp_path), **settings)
    learners = federation.workers()

    def kill(order: Train) -> None:
        if (order.task, order.round) == position:
            raise Killed

    learners[B].on_train = kill
    outcome = transport.run(federation, learners)
    assert same_bits(outcome.weights, expected(**settings).weights)
    assert not [note for note in outcome.history.faults.notes if "owed" in note]
    if isinstance(transport, WebSocket):
        assert outcome.history.faults.reconnects == {B: 1}
        assert outcome.history.faults.resumes == 0


@pytest.mark.parametrize("compression", ["none", "int8"])
@pytest.mark.parametrize("position", [(1, 1), (1, 2), (2, 2)])
def test_an_aggregator_killed_while_it_aggregates_continues_from_its_checkpoint(
    transport: Transport,
    make_federation: MakeFederation,
    expected: Callable[..., Outcome],
    same_bits: SameBits,
    in_pieces: None,
    tmp_path: Path,
    position: tuple[int, int],
    compression: str,
) -> None:
    settings = {"aggregation": {"compression": compression}}
    federation = fast(make_federation, CheckpointStore(tmp_path), **settings)
    original = federation.aggregator
    kills: list[tuple[int, int]] = []

    def aggregator() -> Aggregator:
        made: Aggregator = original()

        def kill(task: int, round: int) -> None:
            if (task, round) == position and not kills:
                kills.append(position)
                # No last words: the process would be gone.
                made.fail = lambda error: []  # type: ignore[method-assign]
                raise Killed

        federation.head.on_round = kill
        return made

    federation.aggregator = aggregator
    outcome = transport.run(federation, federation.workers())
    assert kills == [position]
    assert same_bits(outcome.weights, expected(**settings).weights)
    assert outcome.history.faults.resumes == (position != (1, 1))
    assert [(row.task, row.round) for row in outcome.history.rounds] == [(1, 1), (1, 2), (2, 1), (2, 2)]


def test_a_dead_worker_is_left_out_with_a_quorum(
    transport: Transport, make_federation: MakeFederation, same_bits: SameBits
) -> None:
    settings: dict[str, Any] = {"aggregation": {"quorum": 2, "roundDeadlineSeconds": 20}}
    outcomes = []
    for each in (transport, InProcess()):
        federation = fast(make_federation, **settings)
        learners = federation.workers()
        del learners[C]
        outcomes.append(each.run(federation, learners))
    assert outcomes[0].reason == "complete"
    assert same_bits(outcomes[0].weights, outcomes[1].weights)
    assert outcomes[0].history.faults.rounds_degraded == 4
    assert all(row.workers[C].outcome == "absent" for row in outcomes[0].history.rounds)


def test_a_worker_that_joins_at_task_3_takes_part_from_there(
    transport: Transport, make_federation: MakeFederation, same_bits: SameBits
) -> None:
    settings: dict[str, Any] = {
        "rounds": (1, 1, 2),
        "aggregation": {"quorum": 2, "roundDeadlineSeconds": 20},
    }
    outcomes = []
    for each in (transport, InProcess()):
        federation = fast(make_federation, **settings)
        learners = federation.workers()
        late = learners.pop(C)
        original = federation.aggregator

        def aggregator(
            federation: Any = federation,
            learners: dict[str, Any] = learners,
            late: Any = late,
            each: Transport = each,
            original: Callable[[], Aggregator] = original,
        ) -> Aggregator:
            made = original()

            def join(task: int, round: int) -> None:
                if (task, round) == (2, 1):
                    learners[C] = late
                    if isinstance(each, WebSocket):
                        # From now on every round waits for all three.
                        each.clock.running = False

            federation.head.on_round = join
            return made

        federation.aggregator = aggregator
        outcomes.append(each.run(federation, learners))
    for outcome in outcomes:
        took_part = [row.workers[C].outcome for row in outcome.history.rounds]
        assert took_part == ["absent", "absent", "accepted", "accepted"]
    assert same_bits(outcomes[0].weights, outcomes[1].weights)


def test_workers_of_a_drained_aggregator_stay_and_go_on_with_the_next(
    make_federation: MakeFederation,
    expected: Callable[..., Outcome],
    same_bits: SameBits,
    tmp_path: Path,
) -> None:
    transport = WebSocket()
    transport.drains = 1
    federation = fast(make_federation, CheckpointStore(tmp_path))
    learners = federation.workers()
    for learner in learners.values():
        # Nobody gets beyond the first round of task 2 before the aggregator is drained.
        learner.on_train = lambda order: order.task == 1 or federation.observer.over.wait(10)
    outcome = transport.run(
        federation, learners, stop=lambda: transport.drains == 1 and bool(federation.observer.of("task"))
    )
    assert outcome.reason == "complete"
    assert transport.drains == 0
    assert outcome.history.faults.resumes == 1
    assert set(transport.reasons.values()) == {"complete"}
    assert not transport.errors
    assert same_bits(outcome.weights, expected().weights)


def test_stopped_in_the_middle_and_resumed_gives_the_same_bits(
    transport: Transport,
    make_federation: MakeFederation,
    expected: Callable[..., Outcome],
    same_bits: SameBits,
    tmp_path: Path,
) -> None:
    federation = fast(make_federation, CheckpointStore(tmp_path))
    learners = federation.workers()
    for learner in learners.values():
        # Nobody gets beyond the first round of task 2 before the run has stopped.
        learner.on_train = lambda order: order.task == 1 or federation.observer.over.wait(10)
    outcome = transport.run(federation, learners, stop=lambda: bool(federation.observer.of("task")))
    assert outcome.reason == "suspended"
    assert [(row.task, row.round) for row in outcome.history.rounds] == [(1, 1), (1, 2)]
    if isinstance(transport, WebSocket):
        assert not transport.reasons  # nobody said that the run is over; they were told to stop
        assert {type(error) for error in transport.errors.values()} == {RetryError}
    resumed = type(transport)().run(federation, federation.workers())
    assert resumed.reason == "complete"
    assert resumed.history.faults.resumes == 1
    assert same_bits(resumed.weights, expected().weights)
    assert [row.counts for row in resumed.history.tasks] == [row.counts for row in expected().history.tasks]


def test_abstaining_workers_and_rounds_without_any_update(
    transport: Transport, make_federation: MakeFederation, same_bits: SameBits
) -> None:
    outcomes = []
    for each in (transport, InProcess()):
        federation = fast(make_federation)
        learners = federation.workers()
        for name, learner in learners.items():
            learner.samples_of = lambda order, name=name: 0 if order.round == 2 or name == B else 10
        outcomes.append(each.run(federation, learners))
    assert same_bits(outcomes[0].weights, outcomes[1].weights)
    rows = outcomes[0].history.rounds
    assert [row.workers[A].outcome for row in rows] == ["accepted", "abstained"] * 2
    assert {row.workers[B].outcome for row in rows} == {"abstained"}


def test_a_loss_that_is_not_finite_ends_the_run_with_the_workers_words(
    transport: Transport, make_federation: MakeFederation
) -> None:
    federation = fast(make_federation)
    learners = federation.workers()
    text = "trainworker-edge-1, task 1, round 2: the loss is not finite; lower learningRate"

    def diverge(order: Train) -> None:
        if order.round == 2:
            raise NumericalError(text)

    learners[B].on_train = diverge
    if isinstance(transport, InProcess):
        with pytest.raises(NumericalError, match="lower learningRate"):
            transport.run(federation, learners)
        return
    outcome = transport.run(federation, learners)
    assert (outcome.reason, outcome.exit_code) == ("failed", 42)
    assert outcome.message == text  # which names the worker already
    assert outcome.history.faults.notes == [f"{B} ended with exit code 42: {text}"]
    assert str(transport.errors[B]) == text
    assert transport.reasons == {A: "failed", C: "failed"}


def test_in_process_a_quorum_out_of_reach_is_an_error_and_no_endless_wait(
    make_federation: MakeFederation,
) -> None:
    federation = make_federation()
    learners = federation.workers()
    del learners[C]
    with pytest.raises(FederationError, match=f"missing: {C}"):
        run_in_process(federation.aggregator(), learners, lambda: False)


def test_in_process_progress_is_shown_as_heartbeats(make_federation: MakeFederation) -> None:
    federation = make_federation(rounds=(1,), workers=1)
    run_in_process(federation.aggregator(), federation.workers(), lambda: False)
    [beat] = federation.observer.beats
    assert beat.state == "training"
    assert beat.progress == pytest.approx(1 / 3)
    assert np.isfinite(beat.loss)


def test_in_process_counts_the_bytes_that_the_codec_makes(make_federation: MakeFederation) -> None:
    federation = make_federation()
    outcome = run_in_process(federation.aggregator(), federation.workers(), lambda: False)
    history = outcome.history
    in_rows = sum(row.workers[A].bytes_up for row in history.rounds)
    in_rows += sum(row.workers[A].bytes_up for row in history.tasks)
    # Beside orders and answers there is the hello.
    assert in_rows < federation.observer.bytes[(A, "up")] < in_rows + 300
