from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from engram.errors import ConfigurationError
from engram.federation.messages import (
    Ack,
    Consolidate,
    Consolidated,
    Finish,
    Heartbeat,
    Hello,
    Train,
    Update,
    Wait,
)
from engram.federation.versions import PROTOCOL
from engram.federation.websocket.backoff import Backoff
from engram.federation.websocket.usage import peak_bytes, resident_bytes
from tests.federation.websocket.scripted import Talk, aggregator, welcome, work

A = "trainworker-edge-0"


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


def test_the_first_heartbeat_comes_with_the_welcome(learner: Any) -> None:
    """A run that is over before the next one is due has shown its workers' memory all the same."""

    def script(talk: Talk) -> None:
        talk.hear()
        talk.say(welcome(heartbeat_seconds=3600))
        beat = talk.hear_any()
        assert isinstance(beat, Heartbeat)
        assert beat.memory_bytes > 1_000_000
        talk.say(Finish("complete"))

    with aggregator(script) as url:
        work(learner, url)


def test_heartbeats_go_on_while_a_step_takes_long(learner: Any, train: MakeTrain) -> None:
    beaten = threading.Event()
    learner.on_train = lambda order: beaten.wait(10)

    def script(talk: Talk) -> None:
        talk.hear()
        talk.say(welcome(heartbeat_seconds=0.01))
        talk.say(train())
        for _ in range(3):
            beat = talk.hear_any()
            assert isinstance(beat, Heartbeat)
            assert beat.memory_bytes > 1_000_000
        beaten.set()
        assert isinstance(talk.hear(), Update)
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
            assert isinstance(talk.hear_any(), Heartbeat)
        beaten.set()
        assert isinstance(talk.hear(), Update)
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
        update = talk.hear()
        assert isinstance(update, Update)
        assert (update.task, update.round) == (1, 2)
        talk.say(Finish("complete"))

    with aggregator(script) as url:
        assert work(learner, url) == "complete"
    assert learner.trained == [(1, 2)]


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
