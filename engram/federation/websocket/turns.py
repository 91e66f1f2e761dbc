"""A thread that does one thing after the other for an event loop, which hears of all that is done at once.

An executor of the standard library wakes the loop for every single thing, and each of these calls has the two
threads wait for each other: with a thousand workers that takes longer than what the thread does. What takes
less time than to hand it over is done by the loop itself, as long as the thread has nothing to do.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

Result = TypeVar("Result")


class Turns:
    """The thread, made in the loop that it works for."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiting: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._done: deque[Callable[[], None]] = deque()
        self._told = False
        """Whether the loop has been woken for what is in `_done`."""
        self._closed = False
        self._asked = 0
        """What was asked for and not heard of."""
        self._here = False
        """Whether the loop does something itself."""
        self._resting: list[asyncio.Future[None]] = []
        """Who waits for the thread to have nothing to do."""
        self._thread = threading.Thread(target=self._main, name=name, daemon=True)
        self._thread.start()

    @property
    def idle(self) -> bool:
        """Whether the thread has nothing to do, to be asked in the loop: only there it gets something."""
        return not self._asked and not self._closed

    async def rest(self) -> None:
        """Wait until the thread has nothing to do, for the moment."""
        if self._asked:
            waiter: asyncio.Future[None] = self._loop.create_future()
            self._resting.append(waiter)
            await waiter

    def do_here(self, work: Callable[[], Result]) -> Result:
        """Do something in the loop, while the thread is idle, as if the thread did it."""
        self._here = True
        try:
            return work()
        finally:
            self._here = False

    async def take(self, work: Callable[[], Result]) -> Result:
        """Let the thread do something after all that was asked before; return or raise what it does."""
        if self._closed:
            raise RuntimeError("the thread has ended")
        future: asyncio.Future[Result] = self._loop.create_future()
        self._asked += 1
        self._waiting.put(partial(self._work, work, future))
        return await future

    def tell(self, callback: Callable[[], None]) -> None:
        """Have the loop call something, from the thread: before it hears that the work is done."""
        if self._here:
            callback()
            return
        self._done.append(callback)
        # Set before it is looked at here, cleared before the queue is emptied there: nothing stays unheard.
        if not self._told:
            self._told = True
            self._loop.call_soon_threadsafe(self._hear)

    def close(self, last: Callable[[], None]) -> None:
        """Wait until everything is done, `last` included; the loop hears no more of it."""
        self._closed = True
        self._waiting.put(last)
        self._waiting.put(None)
        self._thread.join()

    def _main(self) -> None:
        while (work := self._waiting.get()) is not None:
            work()

    def _work(self, work: Callable[[], Any], future: asyncio.Future[Any]) -> None:
        try:
            result = work()
        except BaseException as error:
            self.tell(partial(self._heard, partial(_fail, future, error)))
        else:
            self.tell(partial(self._heard, partial(_settle, future, result)))

    def _heard(self, end: Callable[[], None]) -> None:
        self._asked -= 1
        end()
        if not self._asked:
            resting, self._resting = self._resting, []
            for waiter in resting:
                _settle(waiter, None)

    def _hear(self) -> None:
        self._told = False
        while self._done:
            self._done.popleft()()


def _settle(future: asyncio.Future[Any], result: object) -> None:
    if not future.done():
        future.set_result(result)


def _fail(future: asyncio.Future[Any], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)
