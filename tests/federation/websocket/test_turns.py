from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from functools import partial

import pytest

from engram.federation.websocket.turns import Turns


def nothing() -> None:
    """Do nothing."""


def test_things_are_done_one_after_the_other_and_heard_of_in_their_order() -> None:
    heard: list[object] = []
    done: list[int] = []

    async def check() -> None:
        turns = Turns("turns")

        def work(number: int) -> int:
            assert threading.current_thread() is not threading.main_thread()
            done.append(number)
            turns.tell(partial(heard.append, f"told {number}"))
            return number

        async def one(number: int) -> None:
            heard.append(await turns.take(partial(work, number)))

        await asyncio.gather(*(one(number) for number in range(50)))
        turns.close(partial(done.append, -1))

    asyncio.run(check())
    assert done == [*range(50), -1]
    assert [item for item in heard if isinstance(item, int)] == list(range(50))
    assert all(heard.index(f"told {number}") < heard.index(number) for number in range(50))


def test_an_error_is_raised_where_it_was_asked_for_and_a_cancelled_one_by_nobody() -> None:
    async def check() -> None:
        turns, gate = Turns("turns"), threading.Event()

        def fail(wait: Callable[[], object]) -> None:
            wait()
            raise OSError("full")

        cancelled = asyncio.ensure_future(turns.take(partial(fail, gate.wait)))
        await asyncio.sleep(0)
        cancelled.cancel()
        gate.set()
        with pytest.raises(OSError, match="full"):
            await turns.take(partial(fail, nothing))
        assert cancelled.cancelled()
        turns.close(nothing)
        with pytest.raises(RuntimeError, match="ended"):
            await turns.take(nothing)

    asyncio.run(check())


def test_the_loop_does_something_itself_while_the_thread_has_nothing_to_do() -> None:
    heard: list[str] = []

    async def check() -> None:
        turns, gate = Turns("turns"), threading.Event()
        assert turns.idle
        waiting = asyncio.ensure_future(turns.take(gate.wait))
        await asyncio.sleep(0)
        assert not turns.idle
        resting = [asyncio.ensure_future(turns.rest()) for _ in range(3)]
        await asyncio.sleep(0)
        resting[0].cancel()
        gate.set()
        await asyncio.gather(*resting[1:])
        assert waiting.done()
        assert turns.idle
        await turns.rest()

        def work() -> str:
            assert threading.current_thread() is threading.main_thread()
            turns.tell(partial(heard.append, "told"))
            assert heard == ["told"]
            return "done"

        assert turns.do_here(work) == "done"
        with pytest.raises(OSError, match="full"):
            turns.do_here(partial(_fail, OSError("full")))
        assert await turns.take(threading.current_thread) is not threading.main_thread()
        turns.close(nothing)
        assert not turns.idle

    asyncio.run(check())


def _fail(error: Exception) -> None:
    raise error
