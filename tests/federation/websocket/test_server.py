"""The server against raw connections that do what no worker of ours would."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from websockets.exceptions import InvalidStatus

from engram.errors import FederationError
from engram.federation.codec import DOWN, UP, Encoder
from engram.federation.messages import (
    Ack,
    Consolidate,
    Consolidated,
    Down,
    Finish,
    Heartbeat,
    Log,
    Reject,
    Train,
    Wait,
    Welcome,
)
from engram.federation.websocket import hub as server_module
from engram.spec.tokens import worker_token
from tests.federation.conftest import FEATURES
from tests.federation.websocket.raw import KEY, A, B, Server, WithServer, hello_of, update_of

CLOSE_GOING_AWAY = 1001
MakeFederation = Callable[..., Any]


@pytest.mark.parametrize(
    ("worker", "token", "path", "status"),
    [
        (A, "", "/v1/federation", 401),
        (A, "0" * 64, "/v1/federation", 401),
        (A, worker_token(KEY, "uid", B), "/v1/federation", 401),
        ("", None, "/elsewhere", 404),
        (A, None, "/", 404),
    ],
)
def test_the_handshake_is_refused_without_the_path_or_the_workers_own_token(
    with_server: WithServer, worker: str, token: str | None, path: str, status: int
) -> None:
    async def check(server: Server) -> None:
        with pytest.raises(InvalidStatus) as caught:
            async with server.peer(worker, token, path):
                pass
        assert caught.value.response.status_code == status

    with_server(check)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"protocol": 9}, "protocol 9"),
        ({"job_digest": "x"}, "another job file"),
        ({"worker": B}, "speaks for"),
    ],
)
def test_a_hello_that_does_not_fit_is_told_why(
    with_server: WithServer, changes: dict[str, Any], text: str
) -> None:
    async def check(server: Server) -> None:
        async with server.peer(A, hello=False) as peer:
            await peer.say(hello_of(A, **changes) if "worker" not in changes else hello_of(**changes))
            finish = await peer.hear()
            assert isinstance(finish, Finish)
            assert finish.reason == "refused"
            assert text in finish.message
            assert await peer.closed() == 4003

    with_server(check)


def test_a_connection_that_says_nothing_is_closed(with_server: WithServer) -> None:
    async def check(server: Server) -> None:
        async with server.peer(A, hello=False) as peer:
            assert await peer.closed() == 4000

    with_server(check, hello_seconds=0.05)


@pytest.mark.parametrize(
    "data",
    [b"garbage", b"", b"ENG1\xff\xff\xff\xff", Encoder().encode(Wait()).join()],
    ids=["garbage", "empty", "header", "wrong-direction"],
)
def test_garbage_ends_only_the_connection_that_sent_it(with_server: WithServer, data: bytes) -> None:
    async def check(server: Server) -> None:
        async with server.peer(A) as good, server.peer(B) as bad:
            assert isinstance(await good.hear(), Welcome)
            assert isinstance(await bad.hear(), Welcome)
            await bad.socket.send(data)
            heard: Down = Wait()
            while not isinstance(heard, Reject):
                heard = await bad.hear()
            assert heard.reason == "protocol"
            assert await bad.closed() == 1002
            assert isinstance(await good.hear(), Wait)
            async with server.peer(B) as again:
                assert isinstance(await again.hear(), Welcome)
                train = await again.hear()
                assert isinstance(train, Train)
                await again.say(update_of(train))
                assert await again.hear() == Ack(1, 1)

    _, observer = with_server(check)
    assert observer.states[B] == "disconnected"


def test_a_message_before_hello_and_a_text_frame_are_refused(with_server: WithServer) -> None:
    async def check(server: Server) -> None:
        async with server.peer(A, hello=False) as peer:
            await peer.say(Heartbeat("idle"))
            assert await peer.closed() == 1002
        async with server.peer(A, hello=False) as peer:
            await peer.socket.send("hello")
            assert await peer.closed() == 1002

    with_server(check)


def test_a_message_larger_than_the_model_allows_is_cut_off(with_server: WithServer) -> None:
    async def check(server: Server) -> None:
        async with server.peer(A) as peer:
            await peer.socket.send(bytes(4000))
            assert await peer.closed() == 1009

    outcome, _ = with_server(check, message_slack_bytes=2000)
    assert outcome.history.faults.rejected == {"too-large": 1}


def test_the_newest_connection_of_a_worker_wins(with_server: WithServer) -> None:
    async def check(server: Server) -> None:
        async with server.peer(A) as first, server.peer(B) as other:
            for peer in (first, other):
                assert isinstance(await peer.hear(), Welcome)
            assert isinstance(await first.hear(), Wait)
            train = await first.hear()
            assert isinstance(train, Train)
            async with server.peer(A) as second:
                assert await first.closed() == 4001
                assert isinstance(await second.hear(), Welcome)
                again = await second.hear()
                assert isinstance(again, Train)
                await second.say(update_of(again))
                assert await second.hear() == Ack(1, 1)
                await second.say(update_of(again))
                reject = await second.hear()
                assert isinstance(reject, Reject)
                assert reject.reason == "duplicate"

    outcome, _ = with_server(check)
    assert outcome.history.faults.reconnects == {A: 1}
    assert outcome.history.faults.rejected == {"duplicate": 1}


def test_an_update_that_is_held_is_asked_for_on_the_new_connection(with_server: WithServer) -> None:
    async def check(server: Server) -> None:
        async with server.peer(B) as other:
            async with server.peer(A) as first:
                await first.hear()
                await first.hear()
                train = await first.hear()
                assert isinstance(train, Train)
            async with server.peer(A, hello=False) as second:
                await second.say(hello_of(A, holds=(1, 1)))
                welcome = await second.hear()
                assert isinstance(welcome, Welcome)
                assert welcome.resend
                await second.say(update_of(train))
                assert await second.hear() == Ack(1, 1)
            assert isinstance(await other.hear(), Welcome)

    with_server(check)


def test_a_large_update_in_many_fragments(with_server: WithServer) -> None:
    async def check(server: Server) -> None:
        async with server.peer(A) as peer, server.peer(B) as other:
            await other.hear()
            for _ in range(2):
                await peer.hear()
            train = await peer.hear()
            assert isinstance(train, Train)
            data = Encoder().encode(update_of(train)).join()
            await peer.socket.send(data[start : start + 7] for start in range(0, len(data), 7))
            assert await peer.hear() == Ack(1, 1)

    with_server(check)


def test_a_peer_that_does_not_read_holds_up_neither_its_successor_nor_the_end(
    with_server: WithServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "CLOSE_SECONDS", 0.2)

    async def check(server: Server) -> None:
        # Larger than what the kernel takes in on the way.
        server.aggregator._engine.weights = {"w": np.zeros(2**23, np.float32)}
        async with server.peer(B) as other, server.peer(A) as deaf:
            await other.hear()
            deaf.socket.transport.pause_reading()
            while not isinstance(await other.hear(), Train):
                pass
            async with server.peer(A) as successor:
                assert isinstance(await successor.hear(), Welcome)
                successor.socket.transport.pause_reading()
                server.stop.set()
                await asyncio.wait({server.serving}, timeout=10)
                assert server.serving.done()
                for peer in (deaf, successor):
                    peer.socket.transport.abort()

    outcome, _ = with_server(check)
    assert outcome.reason == "suspended"


def test_an_order_that_cannot_be_sent_ends_the_run_instead_of_being_waited_for(
    with_server: WithServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode = Encoder.encode

    def fail(encoder: Encoder, message: Any) -> Any:
        if isinstance(message, Train):
            raise OverflowError("a number that msgpack cannot hold")
        return encode(encoder, message)

    monkeypatch.setattr(Encoder, "encode", fail)

    async def check(server: Server) -> None:
        async with server.peer(A), server.peer(B):
            await asyncio.wait({server.serving}, timeout=10)
            assert server.serving.done()

    with pytest.raises(FederationError, match=r"a message for .* cannot be sent: a number"):
        with_server(check)


def test_a_peer_that_is_silent_shows_as_disconnected_once(with_server: WithServer) -> None:
    happened: queue.SimpleQueue[str] = queue.SimpleQueue()

    async def check(server: Server) -> None:
        async with server.peer(A) as peer:
            await peer.hear()
            aggregator = server.aggregator
            changed, tick = aggregator._observer.worker_changed, aggregator.tick

            def on_change(worker: str, state: str) -> None:
                changed(worker, state)
                happened.put(state)

            def on_tick(now: float) -> Any:
                happened.put("tick")
                return tick(now)

            aggregator._observer.worker_changed, aggregator.tick = on_change, on_tick

            async def until(state: str) -> None:
                while await asyncio.to_thread(happened.get, True, 10) != state:
                    pass

            await until("disconnected")
            assert [await asyncio.to_thread(happened.get, True, 10) for _ in range(10)] == ["tick"] * 10
            await peer.say(Heartbeat("idle"))
            await until("connected")

    with_server(check, heartbeat_seconds=0.05)


def test_the_loop_answers_while_the_aggregator_evaluates(with_server: WithServer) -> None:
    entered, go_on = threading.Event(), threading.Event()

    async def check(server: Server) -> None:
        learner = server.aggregator._engine._learner
        evaluate = learner.evaluate

        def slow(task: int, weights: Any) -> Any:
            entered.set()
            assert go_on.wait(10)
            return evaluate(task, weights)

        learner.evaluate = slow
        async with server.peer(A) as one, server.peer(B) as two:
            for peer in (one, two):
                train: Down = Wait()
                while not isinstance(train, Train):
                    train = await peer.hear()
                await peer.say(update_of(train))
            assert await asyncio.to_thread(entered.wait, 10)
            # The handshake is the loop's; its 401 comes although the aggregator is busy.
            with pytest.raises(InvalidStatus):
                async with server.peer(A, token="wrong"):
                    pass
            go_on.set()
            while not isinstance(train, Train) or train.round != 2:
                train = await one.hear()

    with_server(check, rounds=(2,), evaluation={"every": "round"})


@pytest.mark.parametrize(("brief", "second"), [(60.0, "MainThread"), (0.0, "aggregator")])
def test_the_loop_takes_an_update_that_closes_nothing_where_the_last_one_was_brief(
    with_server: WithServer, monkeypatch: pytest.MonkeyPatch, brief: float, second: str
) -> None:
    monkeypatch.setattr(server_module, "BRIEF_SECONDS", brief)
    threads: list[str] = []

    async def check(server: Server) -> None:
        learner = server.aggregator._engine._learner
        look = learner.check_info

        def looked(task: int, weights: Any, info: Any) -> None:
            threads.append(threading.current_thread().name)
            look(task, weights, info)

        learner.check_info = looked
        async with server.peer(A) as one, server.peer(B) as two:
            for round in (1, 2):
                for peer in (one, two):
                    heard: Down = Wait()
                    while not isinstance(heard, Train) or heard.round != round:
                        heard = await peer.hear()
                    await peer.say(update_of(heard))
                    while not isinstance(heard, Ack):
                        heard = await peer.hear()

    with_server(check, rounds=(3,))
    # The first one was never seen to be brief, and the second of each round closes it.
    assert threads == ["aggregator", "aggregator", second, "aggregator"]


def test_connections_outlive_a_task_that_the_aggregator_takes_long_to_close(with_server: WithServer) -> None:
    """What trains a network of its own between two tasks needs no thread of its own."""
    entered, go_on = threading.Event(), threading.Event()

    async def check(server: Server) -> None:
        learner = server.aggregator._engine._learner
        close_task = learner.close_task

        def slow(*arguments: Any) -> Any:
            entered.set()
            assert go_on.wait(10)
            return close_task(*arguments)

        learner.close_task = slow
        async with server.peer(A) as one, server.peer(B) as two:
            order: Down = Wait()
            for peer in (one, two):
                while not isinstance(order := await peer.hear(), Train):
                    pass
                await peer.say(update_of(order))
            for peer in (one, two):
                while not isinstance(order := await peer.hear(), Consolidate):
                    pass
                await peer.say(Consolidated(order.task, 10, {"sums": np.ones(FEATURES, np.float32)}))
            assert await asyncio.to_thread(entered.wait, 10)
            await one.say(Heartbeat("idle"))
            with pytest.raises(InvalidStatus):
                async with server.peer(A, token="wrong"):
                    pass
            go_on.set()
            for peer in (one, two):
                while not isinstance(order := await peer.hear(), Train):
                    pass
                assert (order.task, order.round) == (2, 1)
            assert "disconnected" not in server.aggregator._presence.states().values()

    with_server(check, rounds=(1, 1))


def test_heartbeats_and_a_workers_last_words_reach_the_observer(with_server: WithServer) -> None:
    async def check(server: Server) -> None:
        async with server.peer(A) as peer:
            await peer.hear()
            await peer.say(Heartbeat("training", 0.25, 1.5, 1000, 0))
            await peer.say(Log("broken by the test", 42))
            heard: Down = Wait()
            while not isinstance(heard, Finish):
                heard = await peer.hear()
            assert heard == Finish("failed", f"{A}: broken by the test")

    outcome, observer = with_server(check)
    assert observer.beats == [Heartbeat("training", 0.25, 1.5, 1000, 0)]
    assert (outcome.reason, outcome.exit_code) == ("failed", 42)


def test_workers_of_a_suspended_run_are_disconnected_not_dismissed(with_server: WithServer) -> None:
    async def check(server: Server) -> None:
        async with server.peer(A) as peer:
            await peer.hear()
            await peer.hear()
            server.stop.set()
            assert await peer.closed() == CLOSE_GOING_AWAY

    outcome, _ = with_server(check, linger_seconds=2.0)
    assert (outcome.reason, outcome.exit_code) == ("suspended", 75)


def test_up_and_down_are_told_apart() -> None:
    assert not UP & DOWN
