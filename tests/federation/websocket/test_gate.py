from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engram.federation.websocket.gate import SLOW_SECONDS, Gate, Ticket


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as made:
        yield made


def in_loop(check: Callable[[], None]) -> None:
    async def main() -> None:
        check()

    asyncio.run(main())


def test_who_finds_no_room_is_let_in_when_there_is_some_in_the_order_of_coming() -> None:
    def check() -> None:
        gate, let_in = Gate(10), list[tuple[str, Ticket]]()
        first, second = gate.enter(6, print), gate.enter(4, print)
        assert first is not None
        assert second is not None
        assert gate.enter(5, lambda ticket: let_in.append(("c", ticket))) is None
        assert gate.enter(1, lambda ticket: let_in.append(("d", ticket))) is None, "nobody overtakes"
        second.leave()
        assert let_in == []
        first.leave()
        assert [name for name, _ in let_in] == ["c", "d"]

    in_loop(check)


def test_what_is_larger_than_all_room_comes_in_alone() -> None:
    def check() -> None:
        gate, let_in = Gate(10), list[Ticket]()
        large = gate.enter(50, print)
        assert large is not None
        assert gate.enter(1, let_in.append) is None
        large.leave()
        assert len(let_in) == 1
        assert gate.enter(50, print) is None

    in_loop(check)


def test_room_is_given_back_once() -> None:
    def check() -> None:
        gate = Gate(10)
        first, second = gate.enter(10, print), gate.enter(10, print)
        assert first is not None
        assert second is None
        first.leave()
        first.leave()
        assert gate.enter(1, print) is None, "the second one has it all"

    in_loop(check)


def test_a_crowd_of_those_who_have_left_meanwhile_is_passed_in_one_go() -> None:
    def check() -> None:
        gate, let_in = Gate(1), list[Ticket]()
        first = gate.enter(1, print)
        assert first is not None
        for _ in range(5000):  # each gives its room back at once
            assert gate.enter(1, Ticket.leave) is None
        assert gate.enter(1, let_in.append) is None
        first.leave()
        assert len(let_in) == 1

    in_loop(check)


def test_a_slow_message_leaves_its_room_to_others_and_one_that_has_arrived_does_not() -> None:
    class Loop(asyncio.SelectorEventLoop):
        """Time passes when the test says so."""

        skipped = 0.0

        def time(self) -> float:
            return super().time() + self.skipped

    async def check() -> None:
        loop, gate = asyncio.get_running_loop(), Gate(1)
        assert isinstance(loop, Loop)
        let_in: asyncio.Queue[Ticket] = asyncio.Queue()
        assert gate.enter(1, print) is not None
        assert gate.enter(1, let_in.put_nowait) is None
        loop.skipped += SLOW_SECONDS
        arrived = await let_in.get()
        arrived.arrived()
        assert gate.enter(1, let_in.put_nowait) is None
        loop.skipped += 10 * SLOW_SECONDS
        later = loop.create_future()
        loop.call_later(0, later.set_result, None)
        await later
        assert let_in.empty()
        arrived.leave()
        assert let_in.qsize() == 1

    with asyncio.Runner(loop_factory=Loop) as runner:
        runner.run(check())


@given(
    room=st.integers(0, 20),
    steps=st.lists(st.one_of(st.integers(1, 30), st.just(0)), max_size=40),
)
@settings(deadline=None)
def test_no_more_is_under_way_than_there_is_room_for(
    runner: asyncio.Runner, room: int, steps: list[int]
) -> None:
    async def check() -> None:
        gate, inside, waiting = Gate(room), list[Ticket](), list[int]()

        def enter(ticket: Ticket) -> None:
            assert ticket.size == waiting.pop(0)
            inside.append(ticket)

        for size in steps:
            if size:
                ticket = gate.enter(size, enter)
                if ticket is None:
                    waiting.append(size)
                else:
                    inside.append(ticket)
            elif inside:
                inside.pop(0).leave()
            assert len(inside) == 1 or sum(ticket.size for ticket in inside) <= room
            assert inside or not waiting
        for _ in range(len(steps)):
            if inside:
                inside.pop(0).leave()
        assert not waiting

    runner.run(check())
