"""How long a round waits for its slowest workers, learned from how long workers usually take.

Seconds are counted from the order to a worker until its update has come, so they hold what the network takes
as well. The clock is the transport's, which never goes back; what is remembered over a restart are durations.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Sequence
from statistics import median

ROUNDS = 5
"""So many rounds are remembered: one slow round moves their median little, a new habit shows soon."""
LEAST_SECONDS = 1.0
"""No round is closed earlier than this below all of its workers: less is jitter, and saves nothing."""


class Pace:
    """The seconds that workers have taken in one round so far."""

    def __init__(self) -> None:
        self._ordered: dict[str, float] = {}
        """When the workers that are there and have not answered were given the order."""
        self._taken: list[float] = []
        """Sorted, so that the median is at hand after every update."""

    def ordered(self, worker: str, now: float) -> None:
        """Note that a worker is asked, for the first time or again."""
        self._ordered[worker] = now

    def put_off(self, seconds: float) -> None:
        """Note that the orders so far were given so much later."""
        self._ordered = {worker: start + seconds for worker, start in self._ordered.items()}

    def gone(self, worker: str) -> None:
        """Forget the order of a worker that is not there any more: its silence says nothing of its pace."""
        self._ordered.pop(worker, None)

    def answered(self, worker: str, now: float) -> None:
        """Note a worker's update; one that it had ready, and was only asked to send again, has no pace."""
        start = self._ordered.pop(worker, None)
        if start is not None:
            insort(self._taken, max(0.0, now - start))

    def closed(self, now: float) -> float | None:
        """Return the median over everybody who was there, None when nobody was measured.

        Those who are still at work count with what they have taken by now: a round that most workers miss is
        a slow one, so the next ones wait longer.
        """
        waiting = [max(0.0, now - start) for start in self._ordered.values()]
        return median([*self._taken, *waiting]) if self._taken or waiting else None

    def patience(self, factor: float, before: Sequence[float]) -> float | None:
        """Return how many seconds a round waits that has its quorum, None as long as it cannot be said.

        `before` are the medians of earlier rounds. The round's own median counts when it is longer: a task
        with more data than the one before slows everybody down, which makes nobody a straggler.
        """
        if not before:
            return None
        count = len(self._taken)
        own = (self._taken[(count - 1) // 2] + self._taken[count // 2]) / 2 if count else 0.0
        return max(LEAST_SECONDS, factor * max(median(before), own))


def remembered(before: Sequence[float], closed: float | None) -> tuple[float, ...]:
    """Return the medians to go by after one more round."""
    return (*before, *([] if closed is None else [closed]))[-ROUNDS:]
