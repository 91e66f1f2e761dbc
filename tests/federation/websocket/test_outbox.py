from __future__ import annotations

import asyncio

from engram.federation.messages import Ack, Consolidate, Down, Evaluate, Finish, Train, Wait
from engram.federation.websocket.outbox import Outbox


def drained(*messages: Down) -> list[Down | None]:
    async def main() -> list[Down | None]:
        outbox = Outbox()
        for message in messages:
            outbox.put(message)
        outbox.end()
        found: list[Down | None] = []
        while True:
            found.append(await outbox.get())
            if found[-1] is None:
                return found

    return asyncio.run(main())


def test_messages_come_in_order_and_then_the_end() -> None:
    assert drained(Wait(), Ack(1, 1), Finish("complete")) == [Wait(), Ack(1, 1), Finish("complete"), None]


def test_an_order_that_a_newer_one_overtakes_is_not_sent() -> None:
    first, second, third = (Train(1, round, {}, ()) for round in (1, 2, 3))
    assert drained(first, Ack(1, 1), second, Evaluate(1, 2, {}, ()), third) == [Ack(1, 1), third, None]


def test_a_tasks_end_is_always_sent() -> None:
    end = Consolidate(1, {}, ())
    newer = Train(2, 1, {}, ())
    assert drained(Train(1, 3, {}, ()), end, newer) == [end, newer, None]


def test_get_waits_for_a_message() -> None:
    async def main() -> Down | None:
        outbox = Outbox()
        waiting = asyncio.create_task(outbox.get())
        await asyncio.sleep(0)
        assert not waiting.done()
        outbox.put(Wait())
        return await waiting

    assert asyncio.run(main()) == Wait()
