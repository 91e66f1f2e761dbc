"""What a worker of the job may send by mistake or malice: one answer with a reason, counted, others unharmed.

KubeEdge's aggregator averages the values that are refused here, lets any client overwrite the model of all
others, and waits for ever for one that is gone; `tests/sedna/test_bad_input.py` has the same for its dialect.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

import msgpack
import numpy as np
import pytest
from websockets.exceptions import InvalidStatus

from engram.federation.codec import Encoder
from engram.federation.messages import (
    ClassCounts,
    Consolidate,
    Consolidated,
    Evaluate,
    Evaluation,
    Message,
    Reject,
    Train,
    Update,
    Welcome,
)
from engram.federation.websocket import hub
from engram.federation.websocket.wire import PATH
from engram.spec.names import Rejection
from tests.federation.conftest import FEATURES
from tests.federation.websocket.raw import A, B, Peer, Server, WithServer, update_of
from tests.fuzz.mutate import joined

Spoil = Callable[[Update], Message]


def with_weight(value: Any) -> Spoil:
    return lambda update: replace(update, weights={**update.weights, "head.weight": value})


def spoilt(value: float) -> Spoil:
    def spoil(update: Update) -> Message:
        array = np.array(update.weights["head.weight"])
        array[0, 0] = value
        return replace(update, weights={**update.weights, "head.weight": array})

    return spoil


def without_bias(update: Update) -> Message:
    return replace(update, weights={name: a for name, a in update.weights.items() if name != "head.bias"})


BAD_UPDATES: dict[str, tuple[Spoil, str]] = {
    "NaN": (spoilt(np.nan), "non-finite"),
    "infinity": (spoilt(np.inf), "non-finite"),
    "far too large": (spoilt(1e30), "norm"),
    "no samples, but weights": (lambda update: replace(update, samples=0), "protocol"),
    "more samples than it holds": (lambda update: replace(update, samples=101), "norm"),
    "a shape that would broadcast": (with_weight(np.ones((1, FEATURES), np.float32)), "shape"),
    "a transposed shape": (with_weight(np.ones((FEATURES, 2), np.float32)), "shape"),
    "float64 for float32": (with_weight(np.ones((2, FEATURES))), "shape"),
    "a tensor too few": (without_bias, "shape"),
    "a tensor too many": (
        lambda update: replace(update, weights={**update.weights, "x": np.ones(1)}),
        "shape",
    ),
    "reported info of NaN": (lambda update: replace(update, info={"sum": np.full(3, np.nan)}), "non-finite"),
    "a flood of metrics": (
        lambda update: replace(update, metrics={str(number): 1.0 for number in range(257)}),
        "too-large",
    ),
    "a round to come": (lambda update: replace(update, round=2), "protocol"),
    "a task to come": (lambda update: replace(update, task=2), "protocol"),
    "a consolidation out of turn": (lambda update: Consolidated(1, 100), "protocol"),
    "an evaluation out of turn": (lambda update: Evaluation(1, 0, ClassCounts({}, {})), "protocol"),
}


@pytest.mark.parametrize("name", BAD_UPDATES)
def test_a_bad_update_is_answered_with_its_reason_and_the_good_one_after_it_counts(
    with_server: WithServer, name: str
) -> None:
    spoil, reason = BAD_UPDATES[name]

    async def check(server: Server) -> None:
        async with server.peer(A) as good, server.peer(B) as bad:
            update = update_of(await order(bad, Train))
            await bad.say(spoil(update))
            reject = await order(bad, Reject)
            assert (reject.reason, reject.task, reject.round) == (reason, 1, 1)
            assert reject.message
            await bad.say(update)
            await train(good)
            assert (await order(good, Train)).round == 2

    outcome, observer = with_server(check)
    assert observer.of("rejected") == [(B, reason)]
    assert outcome.history.faults.rejected == {reason: 1}
    assert reason in tuple(Rejection)


def header(kind: object, fields: object, tables: object = ()) -> bytes:
    return joined([kind, fields, tables], b"")


BAD_BYTES: dict[str, bytes | str] = {
    "garbage": b"garbage",
    "nothing": b"",
    "text": "hello",
    "JSON of another protocol": json.dumps({"type": "recv_weight", "data": {}}).encode(),
    "a JSON list": b"[1, 2, 3]",
    "an unknown kind": header("Recv", {}),
    "the model for all, which is not a worker's to send": Encoder().encode(Train(1, 1, {}, ())).join(),
    "a negative number of samples": header(
        "Update", {"task": 1, "round": 1, "samples": -1, "weights": 0, "metrics": {}, "info": 0}, [[]]
    ),
    "a header of 4 GiB": b"ENG1\xff\xff\xff\xff",
    "fields missing": header("Heartbeat", {"state": "idle"}),
    "an executable type": b"ENG1\x10\x00\x00\x00"
    + msgpack.packb(msgpack.ExtType(1, b"\x80\x04cos\nsystem\n.")),
}


@pytest.mark.parametrize("name", BAD_BYTES)
def test_bytes_that_are_no_message_end_one_connection_with_code_and_reason(
    with_server: WithServer, name: str
) -> None:
    async def check(server: Server) -> None:
        async with server.peer(A) as good:
            async with server.peer(B) as bad:
                await order(bad, Train)
                await bad.socket.send(BAD_BYTES[name])
                assert (await order(bad, Reject)).reason == "protocol"
                assert await bad.closed() == 1002
                assert bad.socket.close_reason
            async with server.peer(B) as again:
                await train(again, good)
                assert (await order(good, Train)).round == 2

    outcome, observer = with_server(check)
    assert observer.of("rejected") == [(B, "protocol")]
    assert outcome.history.faults.rejected == {"protocol": 1}


def test_a_wrong_token_a_foreign_version_and_silence_are_counted(with_server: WithServer) -> None:
    async def check(server: Server) -> None:
        async with server.peer(A) as good:
            with pytest.raises(InvalidStatus):
                async with server.peer(B, token="wrong"):
                    pass
            async with server.peer(B, hello=False) as old:
                await old.socket.send(header("Hello", {"worker": B, "protocol": 1}, []))
                assert await old.closed() == 4003
            async with server.peer(B, hello=False) as silent:
                assert await silent.closed() == 4000
            async with server.peer(B) as again:
                await train(again, good)
                assert (await order(good, Train)).round == 2

    _, observer = with_server(check, hello_seconds=0.3)
    assert observer.of("rejected") == [("", "unauthorised"), (B, "unauthorised"), ("", "protocol")]


def test_a_header_that_comes_twice_proves_nothing(with_server: WithServer) -> None:
    async def check(server: Server) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        lines = [
            f"GET {PATH} HTTP/1.1", "Host: x", "Upgrade: websocket", "Connection: Upgrade",
            "Sec-WebSocket-Key: AAECAwQFBgcICQoLDA0ODw==", "Sec-WebSocket-Version: 13",
            f"Engram-Worker: {A}", f"Engram-Worker: {B}",
            "Authorization: Bearer x", "Authorization: Bearer y",
        ]  # fmt: skip
        writer.write("\r\n".join([*lines, "", ""]).encode())
        assert b" 401 " in await reader.readline()
        writer.close()

    with_server(check)


def test_more_connections_than_there_may_be_are_turned_away(
    with_server: WithServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "SPARE_CONNECTIONS", 0)

    async def check(server: Server) -> None:
        async with server.peer(A) as good, server.peer(B) as other:
            with pytest.raises(InvalidStatus) as caught:
                async with server.peer(B):
                    pass
            assert caught.value.response.status_code == 503
            await train(good, other)

    _, observer = with_server(check)
    assert observer.of("rejected") == [("", "unauthorised")]


def test_a_group_that_grows_has_a_connection_for_everybody(
    with_server: WithServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "SPARE_CONNECTIONS", 1)

    async def check(server: Server) -> None:
        async with AsyncExitStack() as stack:
            for index in range(5):
                peer = await stack.enter_async_context(server.peer(f"trainworker-edge-{index}"))
                assert isinstance(await peer.hear(), Welcome)

    with_server(check, workers=1, elastic=True)


BAD_RESULTS: dict[str, tuple[Consolidated, str]] = {
    "other results than the algorithm's": (Consolidated(1, 100, {"other": np.ones(3)}), "shape"),
    "results of another shape": (Consolidated(1, 100, {"sums": np.ones(3, np.float32)}), "shape"),
    "results of NaN": (Consolidated(1, 100, {"sums": np.full(FEATURES, np.nan, np.float32)}), "non-finite"),
    "a state too large": (Consolidated(1, 100, state=bytes(2**18 + 1)), "too-large"),
    "more samples than it holds": (Consolidated(1, 101), "norm"),
}
COUNTS = ClassCounts({0: 1, 1: 2}, {0: 10, 1: 10, 2: 10}, {2: 1})
BAD_COUNTS: dict[str, tuple[ClassCounts, str]] = {
    "more right than there are": (replace(COUNTS, right={0: 11}), "norm"),
    "right ones of no samples": (replace(COUNTS, right_unseen={3: 1}), "norm"),
    "classes to come as if they were seen": (replace(COUNTS, right={2: 1}), "shape"),
    "classes that nobody has": (replace(COUNTS, total={0: 10, 1: 10, 2: 10, 99: 1}), "shape"),
}


@pytest.mark.parametrize("name", [*BAD_RESULTS, *BAD_COUNTS])
def test_bad_answers_at_a_tasks_end_are_refused_and_good_ones_close_it(
    with_server: WithServer, name: str
) -> None:
    results, reason = BAD_RESULTS.get(name, (None, ""))
    counts, reason = BAD_COUNTS.get(name, (None, reason))

    async def check(server: Server) -> None:
        async with server.peer(A) as good, server.peer(B) as bad:
            await train(bad, good)
            for peer in (bad, good):
                await order(peer, Consolidate)
            if results is not None:
                await bad.say(results)
                assert (await order(bad, Reject)).reason == reason
            for peer in (bad, good):
                sums = np.ones(FEATURES, np.float32)
                await peer.say(Consolidated(1, 100, {"sums": sums}))
            for peer in (bad, good):
                await order(peer, Evaluate)
            if counts is not None:
                await bad.say(Evaluation(1, 0, counts))
                assert (await order(bad, Reject)).reason == reason
            for peer in (bad, good):
                await peer.say(Evaluation(1, 0, COUNTS))
            assert (await order(good, Train)).task == 2

    outcome, observer = with_server(check, rounds=(1, 1), evaluation={"location": "workers"})
    assert observer.of("rejected") == [(B, reason)]
    assert outcome.history.tasks[0].counts.right == {0: 2, 1: 4}


async def order(peer: Peer, kind: type[Any]) -> Any:
    """Return the next message of that kind."""
    while not isinstance(heard := await peer.hear(), kind):
        pass
    return heard


async def train(*peers: Peer) -> None:
    """Answer the open round."""
    for peer in peers:
        await peer.say(update_of(await order(peer, Train)))
