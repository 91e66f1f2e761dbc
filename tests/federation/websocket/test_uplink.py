from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest

from engram.federation import codec
from engram.federation.codec import UP, Decoder, Encoded, Parts
from engram.federation.messages import (
    ClassCounts,
    Consolidated,
    Credit,
    Evaluation,
    Heartbeat,
    Message,
    NoCredit,
    Offer,
    Up,
    Update,
)
from engram.federation.pieces import header_of
from engram.federation.websocket.uplink import Uplink


class Line:
    """An uplink and what has come out of it."""

    def __init__(self, runner: asyncio.Runner, whole_bytes: int | None = 500) -> None:
        self._runner = runner
        self.uplink = Uplink()
        self.uplink.whole_bytes = whole_bytes
        self._decoder = Decoder[Up](UP)

    def next(self) -> Any:
        """Return the next message, (number, offset) of a piece, or "nothing" when it would wait."""

        async def get() -> Encoded | Parts | str | None:
            try:
                async with asyncio.timeout(0):
                    return await self.uplink.get()
            except TimeoutError:
                return "nothing"

        item = self._runner.run(get())
        if isinstance(item, Encoded):
            return self._decoder.decode(item.join())
        return item if isinstance(item, str | None) else header_of(b"".join(item))

    def put(self, *messages: Message) -> None:
        for message in messages:
            self.uplink.put(message)


MakeLine = Callable[..., Line]


@pytest.fixture
def make_line() -> Iterator[MakeLine]:
    with asyncio.Runner() as runner:
        yield partial(Line, runner)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec, "CHUNK", 1000)


def update(round: int = 1, size: int = 2000) -> Update:
    return Update(1, round, 5, {"w": np.zeros(size, np.uint8)})


def consolidated(task: int = 1) -> Consolidated:
    return Consolidated(task, 5, {"sums": np.zeros(2000, np.uint8)})


def test_before_the_welcome_and_below_its_limit_everything_goes_whole(make_line: MakeLine) -> None:
    line = make_line(None)
    line.put(update())
    assert isinstance(line.next(), Update)
    line = make_line(500)
    line.put(update(size=10))
    assert isinstance(line.next(), Update)
    assert line.next() == "nothing"


def test_a_large_answer_is_offered_and_goes_in_pieces_after_its_credit(make_line: MakeLine) -> None:
    line = make_line()
    line.put(update(3))
    offer = line.next()
    assert isinstance(offer, Offer)
    assert (offer.number, offer.kind, offer.task, offer.round) == (1, "Update", 1, 3)
    assert offer.size > 2000
    assert line.next() == "nothing"
    line.uplink.credit(Credit(99))
    assert line.next() == "nothing"
    line.uplink.credit(Credit(1))
    assert line.uplink.flowing
    pieces = [line.next(), line.next(), line.next()]
    assert [number for number, _ in pieces] == [1, 1, 1]
    assert pieces[0][1] == 0
    assert line.next() == "nothing"
    line.uplink.no_credit(NoCredit(1, again=False))
    assert line.next() == "nothing"
    assert not line.uplink.flowing


def test_an_answer_is_kept_until_word_comes_even_when_all_of_it_was_sent(make_line: MakeLine) -> None:
    line = make_line()
    line.put(update(1))
    line.next()
    line.uplink.credit(Credit(1))
    while line.next() != "nothing":
        pass
    line.uplink.credit(Credit(1))  # says nothing new
    assert line.next() == "nothing"
    line.uplink.no_credit(NoCredit(1, again=True))
    offer = line.next()
    assert (offer.number, offer.round) == (2, 1)
    line.uplink.credit(Credit(2))
    assert line.next() == (2, 0)


def test_heartbeats_go_between_pieces(make_line: MakeLine) -> None:
    line = make_line()
    line.put(update())
    line.next()
    line.uplink.credit(Credit(1))
    assert line.next() == (1, 0)
    line.put(Heartbeat("uploading"))
    assert line.next() == Heartbeat("uploading")
    assert line.next()[0] == 1


def test_an_answer_that_lost_its_room_is_offered_again_from_its_start(make_line: MakeLine) -> None:
    line = make_line()
    line.put(update())
    line.next()
    line.uplink.credit(Credit(1))
    line.next()
    line.uplink.no_credit(NoCredit(1, again=True))
    offer = line.next()
    assert isinstance(offer, Offer)
    assert offer.number == 2
    line.uplink.no_credit(NoCredit(1, again=True))  # says nothing new
    line.uplink.credit(Credit(2))
    assert line.next() == (2, 0)


def test_an_answer_that_is_not_wanted_makes_way_for_the_next(make_line: MakeLine) -> None:
    line = make_line()
    line.put(consolidated(1), update(1))
    assert line.next().kind == "Consolidated"
    assert line.next() == "nothing"
    line.uplink.no_credit(NoCredit(1, again=False))
    offer = line.next()
    assert (offer.number, offer.kind) == (2, "Update")
    line.uplink.no_credit(NoCredit(2, again=False))
    assert line.next() == "nothing"


def test_a_new_update_takes_the_place_of_the_old_one_even_under_way(
    make_line: MakeLine,
) -> None:
    line = make_line()
    line.put(update(1))
    line.next()
    line.uplink.credit(Credit(1))
    line.next()
    line.put(update(2))
    offer = line.next()
    assert (offer.number, offer.round) == (2, 2)
    assert line.next() == "nothing"
    line.uplink.credit(Credit(2))
    assert line.next() == (2, 0)


def test_the_end_of_a_task_is_never_overtaken_and_keeps_its_credit(make_line: MakeLine) -> None:
    line = make_line()
    line.put(consolidated(1))
    assert line.next().round == 0
    line.uplink.credit(Credit(1))
    line.put(update(1))
    taken = []
    while isinstance(item := line.next(), tuple):
        taken.append(item[0])
    assert set(taken) == {1}
    assert item == "nothing"
    line.uplink.no_credit(NoCredit(1, again=False))
    offer = line.next()
    assert (offer.kind, offer.number) == ("Update", 2)


def test_large_evaluations_are_offered_too_and_large_other_messages_are_not(make_line: MakeLine) -> None:
    line = make_line(10)
    line.put(Evaluation(2, 1, ClassCounts({1: 2}, {1: 3})), Heartbeat("idle"))
    offer = line.next()
    assert (offer.kind, offer.task, offer.round) == ("Evaluation", 2, 1)
    assert line.next() == Heartbeat("idle")


def test_the_end_comes_after_small_messages_and_does_not_wait_for_credit(make_line: MakeLine) -> None:
    line = make_line()
    line.put(update(), Heartbeat("idle"))
    line.uplink.end()
    assert isinstance(line.next(), Offer)
    assert line.next() == Heartbeat("idle")
    assert line.next() is None
