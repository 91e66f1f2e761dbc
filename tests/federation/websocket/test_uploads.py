"""Large answers against a real server: credits, pieces, and workers that misuse or lose them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import pytest

from engram.federation import settings as settings_module
from engram.federation.codec import Encoder
from engram.federation.messages import Ack, Credit, Down, Heartbeat, NoCredit, Offer, Reject, Train, Update
from engram.federation.pieces import pieces_of
from engram.federation.websocket import stream
from tests.federation.websocket.raw import A, B, Peer, Server, WithServer, update_of

Kind = TypeVar("Kind", bound=Down)
SMALL = 64


@pytest.fixture(autouse=True, params=[4096, 20], ids=["read-by-the-library", "read-in-place"])
def everything_is_large(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "SMALLEST", request.param)
    monkeypatch.setattr(settings_module, "LARGEST_WHOLE", SMALL)
    monkeypatch.setattr(settings_module, "SMALLEST_WHOLE", SMALL)


@pytest.fixture
def with_one_slot(with_server: WithServer) -> WithServer:
    def run(check: Callable[[Server], Any], **changes: Any) -> Any:
        return with_server(check, **{"staging_slots": 1, "staging_bytes": 0, **changes})

    return run


async def until(peer: Peer, kind: type[Kind]) -> Kind:
    while not isinstance(heard := await peer.hear(), kind):
        pass
    return heard


class Upload:
    """An answer of a peer that it offers and sends by hand."""

    def __init__(self, peer: Peer, answer: Update, number: int = 1) -> None:
        self.peer, self.number = peer, number
        encoded = Encoder().encode(answer)
        data = encoded.join()
        parts = [data[start : start + 50] for start in range(0, len(data), 50)]
        self.offer = Offer(number, "Update", answer.task, answer.round, encoded.size)
        self.pieces = [b"".join(piece) for piece in pieces_of(number, iter([part] for part in parts))]

    async def ask(self) -> None:
        await self.peer.say(self.offer)

    async def allowed(self) -> None:
        assert await until(self.peer, Credit) == Credit(self.number)

    async def send(self, start: int = 0, stop: int | None = None) -> None:
        for piece in self.pieces[start:stop]:
            await self.peer.socket.send(piece)

    async def whole(self) -> None:
        await self.ask()
        await self.allowed()
        await self.send()


def test_uploads_take_turns_and_count_like_any_answer(with_one_slot: WithServer) -> None:
    async def check(server: Server) -> None:
        async with server.peer(A) as one, server.peer(B) as two:
            first, second = [Upload(peer, update_of(await until(peer, Train))) for peer in (one, two)]
            await first.ask()
            await first.allowed()
            await second.ask()
            await first.send(0, 3)
            await one.say(Heartbeat("uploading", 0.5))
            await first.send(3)
            assert await until(one, Ack) == Ack(1, 1)
            assert await until(one, NoCredit) == NoCredit(1, again=False)
            await second.allowed()
            await second.send()
            assert await until(two, Ack) == Ack(1, 1)
            assert (await until(one, Train)).round == 2

    outcome, observer = with_one_slot(check)
    [row] = outcome.history.rounds
    assert [row.workers[name].outcome for name in (A, B)] == ["accepted"] * 2
    assert row.workers[A].bytes_up == row.workers[B].bytes_up > 100
    assert observer.beats == [Heartbeat("uploading", 0.5)]


def test_what_turns_out_bad_at_the_last_piece_has_not_been_added(with_one_slot: WithServer) -> None:
    weights: list[Any] = []

    async def check(server: Server) -> None:
        async with server.peer(A) as one, server.peer(B) as two:
            train = await until(one, Train)
            good = update_of(train)
            head = np.array(good.weights["head.weight"])
            head[-1, -1] = np.nan
            bad = replace(good, weights={**good.weights, "head.weight": head, "head.bias": head[0, :2] + 99})
            await Upload(one, bad).whole()
            assert (await until(one, Reject)).reason == "non-finite"
            await Upload(one, good, 2).whole()
            assert await until(one, Ack) == Ack(1, 1)
            await Upload(two, update_of(await until(two, Train))).whole()
            weights.append((train.weights, (await until(two, Train)).weights))

    outcome, _ = with_one_slot(check)
    [(before, after)] = weights
    assert all(np.array_equal(before[name], after[name]) for name in before)
    assert outcome.history.faults.rejected == {"non-finite": 1}


def test_a_connection_that_dies_in_the_middle_frees_its_slot(with_one_slot: WithServer) -> None:
    async def check(server: Server) -> None:
        async with server.peer(B) as two:
            async with server.peer(A) as one:
                upload = Upload(one, update_of(await until(one, Train)))
                await upload.ask()
                await upload.allowed()
                await upload.send(0, 2)
                waiting = Upload(two, update_of(await until(two, Train)))
                await waiting.ask()
                one.socket.transport.abort()
            await waiting.allowed()
            await waiting.send()
            assert await until(two, Ack) == Ack(1, 1)

    with_one_slot(check)


def test_one_that_stalls_makes_way_and_is_asked_again(with_one_slot: WithServer) -> None:
    async def check(server: Server) -> None:
        async with server.peer(A) as one, server.peer(B) as two:
            stalled = Upload(one, update_of(await until(one, Train)))
            await stalled.ask()
            await stalled.allowed()
            await stalled.send(0, 2)
            other = Upload(two, update_of(await until(two, Train)))
            await other.ask()
            assert await until(one, NoCredit) == NoCredit(1, again=True)
            await other.allowed()
            await stalled.send(2)  # too late: passed over
            again = Upload(one, update_of(Train(1, 1, server.aggregator.weights, (0, 1))), 2)
            await again.ask()
            await other.send()
            assert await until(two, Ack) == Ack(1, 1)
            await again.allowed()
            await again.send()
            assert await until(one, Ack) == Ack(1, 1)

    outcome, _ = with_one_slot(check, stall_seconds=0.05)
    assert outcome.history.faults.rejected == {}


def test_what_is_not_wanted_is_refused_before_it_is_sent(with_one_slot: WithServer) -> None:
    async def check(server: Server) -> None:
        async with server.peer(A) as one, server.peer(B):
            answer = update_of(await until(one, Train))
            await Upload(one, answer).whole()
            assert await until(one, Ack) == Ack(1, 1)
            assert await until(one, NoCredit) == NoCredit(1, again=False)
            await Upload(one, answer, 2).ask()
            assert (await until(one, Reject)).reason == "duplicate"
            assert await until(one, NoCredit) == NoCredit(2, again=False)

    outcome, _ = with_one_slot(check)
    assert outcome.history.faults.rejected == {"duplicate": 1}


@pytest.mark.parametrize(
    ("changes", "code", "reason"),
    [
        ({"size": 10**9}, 1009, "too-large"),
        ({"size": 0}, 1002, "protocol"),
        ({"kind": "Hello"}, 1002, "protocol"),
    ],
)
def test_an_offer_that_cannot_be_ends_the_connection(
    with_one_slot: WithServer, changes: dict[str, Any], code: int, reason: str
) -> None:
    async def check(server: Server) -> None:
        async with server.peer(A) as one, server.peer(B) as two:
            upload = Upload(one, update_of(await until(one, Train)))
            await one.say(replace(upload.offer, **changes))
            assert (await until(one, Reject)).reason == reason
            assert await one.closed() == code
            await Upload(two, update_of(await until(two, Train))).whole()
            assert await until(two, Ack) == Ack(1, 1)

    outcome, _ = with_one_slot(check)
    assert outcome.history.faults.rejected == {reason: 1}


def test_a_gap_between_pieces_ends_the_connection_and_frees_the_slot(with_one_slot: WithServer) -> None:
    async def check(server: Server) -> None:
        async with server.peer(A) as one, server.peer(B) as two:
            upload = Upload(one, update_of(await until(one, Train)))
            await upload.ask()
            await upload.allowed()
            await upload.send(1)
            assert await one.closed() == 1002
            await Upload(two, update_of(await until(two, Train))).whole()
            assert await until(two, Ack) == Ack(1, 1)

    with_one_slot(check)


def test_pieces_that_nobody_asked_for_are_passed_over(with_one_slot: WithServer) -> None:
    async def check(server: Server) -> None:
        async with server.peer(A) as one, server.peer(B):
            upload = Upload(one, update_of(await until(one, Train)))
            await upload.send()
            await upload.whole()
            assert await until(one, Ack) == Ack(1, 1)

    outcome, _ = with_one_slot(check)
    assert outcome.history.faults.rejected == {}
