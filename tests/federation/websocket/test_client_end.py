"""How a worker ends: told to stop, refused, out of contact, or by an error that it reports."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from typing import Any

import pytest
from websockets.sync.server import ServerConnection

from engram.errors import ConfigurationError, ContactLostError, DataError, RefusedError, RetryError
from engram.federation.messages import Finish, Log, Train, Update
from tests.federation.websocket.scripted import Talk, aggregator, listening, welcome, work

A = "trainworker-edge-0"
MakeTrain = Callable[..., Train]


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

    with listening(script, process_request=once) as url, pytest.raises(RefusedError, match="wrong token"):
        work(learner, url)


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

    with (
        listening(lambda connection: None, process_request=deny) as url,
        pytest.raises(RefusedError, match="wrong token"),
    ):
        work(learner, url)


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


def test_the_network_thread_ends_with_the_worker(learner: Any) -> None:
    def script(talk: Talk) -> None:
        talk.hear()
        talk.say(Finish("complete"))

    with aggregator(script) as url:
        work(learner, url)
    assert not [thread for thread in threading.enumerate() if thread.name == "engram-network"]
