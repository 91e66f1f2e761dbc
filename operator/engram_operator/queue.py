"""The work queue: which job is looked at next. kopf's event handlers neither retry nor bound anything.

A key waits once however often it is added, and is never worked on twice at the same time: added meanwhile, it
comes back when the work is done. Failures come back after 1 s, doubling to 5 minutes, with jitter. Time and
chance are passed in, so tests need no sleep.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

FIRST_RETRY = 1.0
LAST_RETRY = 300.0
JITTER = 0.2
"""A retry comes up to this share earlier or later, so that what failed together does not return together."""

Key = TypeVar("Key", bound=Hashable)


def retry_delay(failures: int, chance: float, longest: float = LAST_RETRY) -> float:
    """Return the seconds to wait after the `failures`-th failure in a row; `chance` is in 0..1."""
    delay = min(longest, FIRST_RETRY * 2.0 ** min(failures - 1, 30))
    return delay * (1.0 + JITTER * (2.0 * chance - 1.0))


class WorkQueue(Generic[Key]):
    """Keys to work on, each once.

    Args:
        clock: seconds that never go back.
        chance: a random number in 0..1, for jitter.
        longest: seconds that the delay after failures grows to.
    """

    def __init__(
        self, clock: Callable[[], float], chance: Callable[[], float], longest: float = LAST_RETRY
    ) -> None:
        self._clock, self._chance, self._longest = clock, chance, longest
        self._ready: deque[Key] = deque()
        self._waiting: dict[Key, float] = {}
        """Ready keys and when each became ready."""
        self._timers: list[tuple[float, int, Key]] = []
        self._due: dict[Key, float] = {}
        """When a timed key is due; entries of the heap that say otherwise are outdated."""
        self._working: dict[Key, float] = {}
        self._dirty: set[Key] = set()
        self._failures: dict[Key, int] = {}
        self._count = 0
        self._finished = clock()
        """When work on a key last ended."""
        self._wake = asyncio.Event()

    def __len__(self) -> int:
        """Keys that are ready, timed or being worked on."""
        return len(self._waiting.keys() | self._due.keys() | self._working.keys())

    def add(self, key: Key) -> None:
        """Look at `key` as soon as possible: a person may just have mended what failed."""
        self._due.pop(key, None)
        if key in self._working:
            self._dirty.add(key)
        elif key not in self._waiting:
            self._waiting[key] = self._clock()
            self._ready.append(key)
            self._wake.set()

    def add_after(self, key: Key, seconds: float) -> None:
        """Look at `key` after `seconds`, or earlier when it is asked for earlier."""
        if key in self._waiting or key in self._dirty:
            return
        due = self._clock() + seconds
        if key in self._due and self._due[key] <= due:
            return
        self._due[key] = due
        self._count += 1
        heapq.heappush(self._timers, (due, self._count, key))
        self._wake.set()

    def take(self) -> Key | None:
        """Return a key to work on now, or None; it must come back by `done` or `failed`."""
        self._ripen()
        while self._ready:
            key = self._ready.popleft()
            if self._waiting.pop(key, None) is not None:
                self._working[key] = self._clock()
                return key
        return None

    def done(self, key: Key) -> None:
        """The work on `key` succeeded."""
        self._failures.pop(key, None)
        self._finish(key)

    def failed(self, key: Key, at_least: float = 0.0) -> float:
        """The work on `key` failed: it comes back after a growing delay, which is returned, or when added.

        `at_least` is the shortest delay in seconds.
        """
        self._failures[key] = self._failures.get(key, 0) + 1
        delay = max(at_least, retry_delay(self._failures[key], self._chance(), self._longest))
        self._finish(key)
        self.add_after(key, delay)
        return delay

    def forget(self, key: Key) -> None:
        """Nothing is to be done for `key` any more; work under way ends by itself."""
        self._failures.pop(key, None)
        self._due.pop(key, None)
        self._waiting.pop(key, None)
        self._dirty.discard(key)

    def next_due(self) -> float | None:
        """Seconds until a timed key is due; None: there is none."""
        while self._timers and self._due.get(self._timers[0][2]) != self._timers[0][0]:
            heapq.heappop(self._timers)
        return max(0.0, self._timers[0][0] - self._clock()) if self._timers else None

    def stalled(self) -> float:
        """Seconds for which one key has been worked on, or ready keys have waited with no work done.

        A long queue that moves is no stall.
        """
        starts = list(self._working.values())
        if self._waiting:
            starts.append(max(min(self._waiting.values()), self._finished))
        return self._clock() - min(starts) if starts else 0.0

    async def get(self) -> Key:
        """Wait for a key to work on."""
        while (key := self.take()) is None:
            self._wake.clear()
            try:
                async with asyncio.timeout(self.next_due()):
                    await self._wake.wait()
            except TimeoutError:
                continue
        return key

    def _ripen(self) -> None:
        """Move what is due to the ready keys."""
        while self.next_due() == 0.0:
            _, _, key = heapq.heappop(self._timers)
            self.add(key)

    def _finish(self, key: Key) -> None:
        self._working.pop(key, None)
        self._finished = self._clock()
        if key in self._dirty:
            self._dirty.discard(key)
            self.add(key)
