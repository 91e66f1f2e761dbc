from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from websockets.sync.server import ServerConnection
from websockets.sync.server import serve as listen
from websockets.typing import Subprotocol

from engram.errors import ConfigurationError, ContactLostError, DataError, RefusedError, RetryError
from engram.federation.codec import UP, Decoder, Encoder
from engram.federation.messages import (
    Ack,
    Consolidate,
    Consolidated,
    Down,
    Finish,
    Heartbeat,
    Hello,
    Log,
    Train,
    Up,
    Update,
    Wait,
    Welcome,
)
from engram.federation.versions import PROTOCOL
from engram.federation.websocket.backoff import Backoff
from engram.federation.websocket.client import run_worker
from engram.federation.websocket.usage import peak_bytes, resident_bytes

A = "trainworker-edge-0"
Script = Callable[["Talk"], None]


class Talk:
    """The aggregator's side of one connection, written out by hand."""

    def __init__(self, connection: ServerConnection) -> None:
        self.connection = connection
        self._encoder, self._decoder = Encoder(), Decoder[Up](UP)

    def say(self, message: Down) -> None:
        self.connection.send(self._encoder.encode(message).join())

    def hear(self) -> Up:
        return self._decoder.decode(self.connection.recv(timeout=10, decode=False))

    def hear_but_beats(self) -> Up:
        while isinstance(message := self.hear(), Heartbeat):
            pass
        return message

    def cut(self) -> None:
        """Break the connection without a word."""
        self.connection.socket.shutdown(socket.SHUT_RDWR)


@contextmanager
def aggregator(*scripts: Script) -> Iterator[str]:
    """Serve connection after connection with the next script each; check that every script ran to its end."""
    remaining, errors = list(scripts), []

    def handle(connection: ServerConnection) -> None:
        script = remaining.pop(0)
        try:
            script(Talk(connection))
        except BaseException as error:
            errors.append(error)
            raise

    with listen(
        handle, "127.0.0.1", 0, subprotocols=[Subprotocol("engram.v1")], compression=None, ping_interval=None
    ) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"ws://127.0.0.1:{server.socket.getsockname()[1]}"
        finally:
            server.shutdown()
            thread.join()
    assert not errors
    assert not remaining


@pytest.fixture
def learner(make_federation: Callable[..., Any]) -> Any:
    return make_federation(workers=1).workers()[A]


def work(learner: Any, *endpoints: str, **changes: Any) -> str:
    values: dict[str, Any] = {
        "worker": A,
        "job_digest": "job",
        "token": "token",
        "attempt": 2,
        "orphan_seconds": 20.0,
        "stop": threading.Event(),
        **changes,
    }
    return run_worker(learner, endpoints=endpoints, **values)


def welcome(**changes: Any) -> Welcome:
    return Welcome(**{"job_digest": "job", "task": 1, "round": 1, "heartbeat_seconds": 10.0, **changes})


@pytest.fixture
def train(make_federation: Callable[..., Any]) -> Callable[..., Train]:
    weights = make_federation(workers=1).aggregator().weights

    def make(round: int = 1) -> Train:
        return Train(1, round, weights, (0, 1))

    return make


MakeTrain = Callable[..., Train]


def test_a_worker_says_hello_trains_and_ends(learner: Any, train: MakeTrain) -> None:
    def script(talk: Talk) -> None:
        request = talk.connection.request
        assert request is not None
        assert request.path == "/v1/federation"
        assert request.headers["Authorization"] == "Bearer token"
        assert request.headers["Engram-Worker"] == A
        assert talk.connection.subprotocol == "engram.v1"
        assert talk.hear() == Hello(
            A, 2, PROTOCOL, "job", "split", learner.samples, "cpu", None, endpoint=url
        )
        talk.say(welcome(state=b'{"1": 0.5}'))
        talk.say(train())
        update = talk.hear()
        assert isinstance(update, Update)
        assert (update.task, update.round) == (1, 1)
        talk.say(Ack(1, 1))
        talk.say(Finish("complete"))

    with aggregator(script) as url:
        assert work(learner, url) == "complete"
    assert learner.restored == [b'{"1": 0.5}']


def test_after_a_cut_the_held_update_is_sent_again_without_training_again(
    learner: Any, train: MakeTrain
) -> None:
    updates: list[Any] = []

    def first(talk: Talk) -> None:
        talk.hear()
        talk.say(welcome())
        talk.say(train())
        updates.append(talk.hear())
        talk.cut()

    def second(talk: Talk) -> None:
        hello = talk.hear()
        assert isinstance(hello, Hello)
        assert hello.holds == (1, 1)
        talk.say(welcome(resend=True))
        updates.append(talk.hear())
        talk.say(Finish("complete"))

    with aggregator(first, second) as url:
        assert work(learner, url) == "complete"
    assert learner.trained == [(1, 1)]
    assert learner.restored == [b""]
    assert updates[0].weights["head.weight"].tobytes() == updates[1].weights["head.weight"].tobytes()


def test_an_update_that_is_in_the_making_when_the_connection_breaks_is_sent_once_on_the_next(
    learner: Any, train: MakeTrain
) -> None:
    training, reconnected = threading.Event(), threading.Event()

    def block(order: Train) -> None:
        training.set()
        assert reconnected.wait(10)

    learner.on_train = block

    def first(talk: Talk) -> None:
        talk.hear()
        talk.say(welcome())
        talk.say(train())
        assert training.wait(10)
        talk.cut()

    def second(talk: Talk) -> None:
        hello = talk.hear()
        assert isinstance(hello, Hello)
        assert hello.holds == (1, 1)
        talk.say(welcome(resend=True))
        reconnected.set()
        assert isinstance(talk.hear(), Update)
        talk.say(train(2))
        update = talk.hear()
        assert isinstance(update, Update)
        assert update.round == 2
        talk.say(Finish("complete"))

    with aggregator(first, second) as url:
        assert work(learner, url) == "complete"
    assert learner.trained == [(1, 1), (1, 2)]


def test_an_aggregator_that_fell_back_to_an_older_state_gets_the_task_done_again(
    learner: Any, train: MakeTrain
) -> None:
    def first(talk: Talk) -> None:
        talk.hear()
        talk.say(welcome())
        talk.say(train())
        talk.hear()
        talk.say(Consolidate(1, train().weights, (0, 1)))
        assert isinstance(talk.hear(), Consolidated)
        talk.cut()

    def second(talk: Talk) -> None:
        hello = talk.hear()
        assert isinstance(hello, Hello)
        assert hello.holds == (1, 0)
        talk.say(welcome())
        talk.say(train())
        assert isinstance(talk.hear(), Update)
        talk.say(Finish("complete"))

    with aggregator(first, second) as url:
        work(learner, url)
    assert learner.restored == [b"", b""]
    assert learner.trained == [(1, 1), (1, 1)]


def test_a_consolidation_that_is_held_is_sent_without_going_back(learner: Any, train: MakeTrain) -> None:
    answers: list[Any] = []

    def first(talk: Talk) -> None:
        talk.hear()
        talk.say(welcome())
        talk.say(Consolidate(1, train().weights, (0, 1)))
        answers.append(talk.hear())
        talk.cut()

    def second(talk: Talk) -> None:
        talk.hear()
        talk.say(welcome(round=0, resend=True))
        answers.append(talk.hear())
        talk.say(Finish("complete"))

    with aggregator(first, second) as url:
        work(learner, url)
    assert learner.restored == [b""]
    assert answers[0].state == answers[1].state != b""


def test_what_the_aggregator_asks_for_but_nobody_holds_is_said_with_a_new_hello(
    learner: Any, train: MakeTrain
) -> None:
    def script(talk: Talk) -> None:
        talk.hear()
        talk.say(welcome(round=3, resend=True))
        hello = talk.hear()
        assert isinstance(hello, Hello)
        assert hello.holds is None
        talk.say(Finish("complete"))

    with aggregator(script) as url:
        assert work(learner, url) == "complete"


def test_heartbeats_go_on_while_a_step_takes_long(learner: Any, train: MakeTrain) -> None:
    beaten = threading.Event()
    learner.on_train = lambda order: beaten.wait(10)

    def script(talk: Talk) -> None:
        talk.hear()
        talk.say(welcome(heartbeat_seconds=0.01))
        talk.say(train())
        for _ in range(3):
            beat = talk.hear()
            assert isinstance(beat, Heartbeat)
            assert beat.memory_bytes > 1_000_000
        beaten.set()
        assert isinstance(talk.hear_but_beats(), Update)
        talk.say(Finish("complete"))

    with aggregator(script) as url:
        work(learner, url)


def test_heartbeats_go_on_while_a_step_holds_the_processor(learner: Any, train: MakeTrain) -> None:
    beaten = threading.Event()

    def spin(order: Train) -> None:
        while not beaten.is_set():
            pass

    learner.on_train = spin

    def script(talk: Talk) -> None:
        talk.hear()
        talk.say(welcome(heartbeat_seconds=0.01))
        talk.say(train())
        for _ in range(3):
            assert isinstance(talk.hear(), Heartbeat)
        beaten.set()
        assert isinstance(talk.hear_but_beats(), Update)
        talk.say(Finish("complete"))

    with aggregator(script) as url:
        work(learner, url)


def test_an_answer_that_is_too_large_ends_the_worker_instead_of_being_sent_for_ever(
    learner: Any, train: MakeTrain
) -> None:
    def script(talk: Talk) -> None:
        talk.hear()
        talk.say(welcome())
        talk.say(train())
        talk.hear()
        talk.connection.close(1009, "message too big")

    with aggregator(script) as url, pytest.raises(ConfigurationError, match="larger than the aggregator"):
        work(learner, url)


def test_a_worker_whose_place_is_taken_comes_back_after_a_while(learner: Any) -> None:
    def replaced(talk: Talk) -> None:
        talk.hear()
        talk.say(welcome())
        talk.connection.close(4001, "replaced")

    def script(talk: Talk) -> None:
        talk.hear()
        talk.say(Finish("complete"))

    with aggregator(replaced, replaced, script) as url:
        assert work(learner, url) == "complete"


def test_training_ends_when_the_network_has_given_up(learner: Any, train: MakeTrain) -> None:
    seen: list[Exception] = []

    def endless(order: Train, progress: Callable[[float, float], None]) -> Update:
        while True:
            try:
                progress(0.5, 1.0)
            except RefusedError as error:
                seen.append(error)
                raise

    learner.train = endless

    def script(connection: ServerConnection) -> None:
        talk = Talk(connection)
        talk.hear()
        talk.say(welcome())
        talk.say(train())

    asked: list[Any] = []

    def once(connection: ServerConnection, request: Any) -> Any:
        asked.append(request)
        return None if len(asked) == 1 else connection.respond(401, "wrong token\n")

    with listen(
        script, "127.0.0.1", 0, process_request=once, subprotocols=[Subprotocol("engram.v1")]
    ) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            with pytest.raises(RefusedError, match="wrong token"):
                work(learner, f"ws://127.0.0.1:{server.socket.getsockname()[1]}")
        finally:
            server.shutdown()
            thread.join()


def test_told_to_stop_while_nobody_answers_a_worker_leaves_at_once(learner: Any) -> None:
    stop = threading.Event()
    stop.set()
    with socket.create_server(("127.0.0.1", 0)) as deaf, pytest.raises(RetryError, match="told to stop"):
        work(learner, f"127.0.0.1:{deaf.getsockname()[1]}", stop=stop)
    assert not [thread for thread in threading.enumerate() if thread.name == "engram-network"]


def test_the_end_of_the_run_interrupts_a_training_that_nobody_waits_for(
    learner: Any, train: MakeTrain
) -> None:
    training, finished = threading.Event(), threading.Event()
    original = learner.train

    def endless(order: Train, progress: Callable[[float, float], None]) -> Update:
        training.set()
        assert finished.wait(10)
        for _ in range(10_000_000):
            progress(0.5, 1.0)
        update: Update = original(order, progress)
        return update

    learner.train = endless

    def script(talk: Talk) -> None:
        talk.hear()
        talk.say(welcome())
        talk.say(train())
        assert training.wait(10)
        talk.say(Finish("failed"))
        talk.connection.ping().wait(10)
        finished.set()

    with aggregator(script) as url:
        assert work(learner, url) == "failed"


def test_a_round_that_was_closed_without_a_slow_worker_is_given_up_for_the_next(
    learner: Any, train: MakeTrain
) -> None:
    training, closed = threading.Event(), threading.Event()
    original = learner.train

    def slow(order: Train, progress: Callable[[float, float], None]) -> Update:
        if order.round == 1:
            training.set()
            assert closed.wait(10)
            for _ in range(10_000_000):
                progress(0.5, 1.0)
        update: Update = original(order, progress)
        return update

    learner.train = slow

    def script(talk: Talk) -> None:
        talk.hear()
        talk.say(welcome())
        talk.say(train())
        assert training.wait(10)
        talk.say(train(2))
        talk.connection.ping().wait(10)
        closed.set()
        update = talk.hear_but_beats()
        assert isinstance(update, Update)
        assert (update.task, update.round) == (1, 2)
        talk.say(Finish("complete"))

    with aggregator(script) as url:
        assert work(learner, url) == "complete"
    assert learner.trained == [(1, 2)]


def test_a_failure_is_reported_before_the_worker_ends(learner: Any, train: MakeTrain) -> None:
    def fail(order: Train) -> None:
        raise DataError("train-images.gz is cut short")

    learner.on_train = fail

    def script(talk: Talk) -> None:
        talk.hear()
        talk.say(welcome())
        talk.say(train())
        assert talk.hear() == Log("train-images.gz is cut short", 43, "DataError")

    with aggregator(script) as url, pytest.raises(DataError, match="cut short"):
        work(learner, url)


def test_an_unexpected_error_is_reported_with_exit_code_1(learner: Any, train: MakeTrain) -> None:
    def fail(order: Train) -> None:
        raise IndexError("a bug")

    learner.on_train = fail

    def script(talk: Talk) -> None:
        talk.hear()
        talk.say(welcome())
        talk.say(train())
        said = talk.hear()
        assert isinstance(said, Log)
        assert said.exit_code == 1
        assert said.text.startswith("IndexError: a bug\nTraceback (most recent call last):")
        assert "in fail" in said.text

    with aggregator(script) as url, pytest.raises(IndexError, match="a bug"):
        work(learner, url)


def test_told_to_stop_a_worker_says_so_and_can_be_started_again(learner: Any, train: MakeTrain) -> None:
    stop = threading.Event()

    def script(talk: Talk) -> None:
        talk.hear()
        talk.say(welcome())
        stop.set()
        assert talk.hear() == Log("told to stop", 75)

    with aggregator(script) as url, pytest.raises(RetryError, match="told to stop"):
        work(learner, url, stop=stop)


def test_told_to_stop_a_worker_does_not_finish_its_round(learner: Any, train: MakeTrain) -> None:
    stop = threading.Event()
    learner.on_train = lambda order: stop.set()

    def script(talk: Talk) -> None:
        talk.hear()
        talk.say(welcome())
        talk.say(train())
        assert talk.hear() == Log("told to stop", 75)

    with aggregator(script) as url, pytest.raises(RetryError):
        work(learner, url, stop=stop)
    assert learner.trained == [(1, 1)]


def test_refused_in_words_or_at_the_handshake(learner: Any) -> None:
    def script(talk: Talk) -> None:
        talk.hear()
        talk.say(Finish("refused", "another job file"))

    with aggregator(script) as url, pytest.raises(RefusedError, match="another job file"):
        work(learner, url)

    def deny(connection: ServerConnection, request: Any) -> Any:
        return connection.respond(401, "unknown worker or wrong token\n")

    with listen(lambda connection: None, "127.0.0.1", 0, process_request=deny) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            with pytest.raises(RefusedError, match="wrong token"):
                work(learner, f"ws://127.0.0.1:{server.socket.getsockname()[1]}")
        finally:
            server.shutdown()
            thread.join()


def test_without_contact_a_worker_leaves_after_its_orphan_seconds(learner: Any) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"ws://127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(ContactLostError, match="no contact"):
            work(learner, url, orphan_seconds=0.2)


def test_endpoints_are_tried_in_turn(learner: Any) -> None:
    def script(talk: Talk) -> None:
        talk.hear()
        talk.say(Finish("complete"))

    with socket.socket() as unused, aggregator(script) as url:
        unused.bind(("127.0.0.1", 0))
        dead = f"127.0.0.1:{unused.getsockname()[1]}"
        assert work(learner, dead, url.removeprefix("ws://")) == "complete"


@pytest.mark.parametrize("endpoint", ["http://host:1", "ws://", "ftp://x"])
def test_an_endpoint_that_is_none_is_a_configuration_error(learner: Any, endpoint: str) -> None:
    with pytest.raises(ConfigurationError, match="write HOST:PORT"):
        work(learner, endpoint)


def test_no_endpoint_is_a_configuration_error(learner: Any) -> None:
    with pytest.raises(ConfigurationError, match="no endpoint"):
        work(learner)


def test_backoff_doubles_to_its_limit_with_jitter_and_slows_after_ten_minutes() -> None:
    backoff = Backoff("seed")
    delays = [backoff.next(silent=1.0) for _ in range(10)]
    limits = [0.1, 0.2, 0.4, 0.8, *[1.5] * 6]
    assert all(limit / 2 <= delay <= limit for delay, limit in zip(delays, limits, strict=True))
    assert len(set(delays)) == 10
    assert backoff.next(silent=601.0) > 15
    backoff.reset()
    assert backoff.next(silent=0.0) <= 0.1
    unwanted = [backoff.next(silent=0.0, unwanted=True) for _ in range(12)]
    assert unwanted[0] <= 0.2
    assert 15 <= unwanted[-1] <= 30
    assert Backoff("other").next(silent=0.0) != Backoff("seed").next(silent=0.0)


def test_the_memory_of_this_process_is_known() -> None:
    now = resident_bytes()
    assert now > 10_000_000
    assert peak_bytes() > 0.9 * now, "the kernel counts the two a little differently"


def test_waiting_and_unknown_orders_need_no_answer(learner: Any) -> None:
    def script(talk: Talk) -> None:
        talk.hear()
        talk.say(welcome())
        talk.say(Wait())
        talk.say(Finish("complete"))

    with aggregator(script) as url:
        assert work(learner, url) == "complete"


def test_the_network_thread_ends_with_the_worker(learner: Any) -> None:
    def script(talk: Talk) -> None:
        talk.hear()
        talk.say(Finish("complete"))

    with aggregator(script) as url:
        work(learner, url)
    assert not [thread for thread in threading.enumerate() if thread.name == "engram-network"]
