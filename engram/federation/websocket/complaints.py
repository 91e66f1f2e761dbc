"""What a worker says while it cannot reach the aggregator: once in words, and again from time to time.

An aggregator that is only slow to start, or restarts, is no news; a name that cannot be resolved is.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from engram.federation.websocket.dial import Unreachable

QUIET_SECONDS = 5.0
"""A refused connection is worth a line only when nobody has answered for so long."""
AGAIN_SECONDS = 60.0
MOST_CHARACTERS = 1000


class Complaints:
    """What is wrong with each endpoint, and when that was last said."""

    def __init__(self, say: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._say, self._clock = say, clock
        self._wrong: dict[str, Unreachable] = {}
        self._said: dict[str, tuple[str, float]] = {}

    def add(self, endpoint: str, trouble: Unreachable, silent: float) -> None:
        """Note that `endpoint` failed, after `silent` seconds without contact; say so where it is news."""
        self._wrong[endpoint] = trouble
        text, when = self._said.get(endpoint, ("", float("-inf")))
        now = self._clock()
        if trouble.step == "TCP" and silent < QUIET_SECONDS:
            return
        if text != str(trouble) or now - when >= AGAIN_SECONDS:
            self._said[endpoint] = (str(trouble), now)
            self._say(f"cannot reach the aggregator at {endpoint}: {trouble}")

    def mended(self, endpoint: str) -> None:
        """Note that `endpoint` works."""
        self._wrong.pop(endpoint, None)
        self._said.pop(endpoint, None)

    def summary(self) -> str:
        """Return what is wrong with every endpoint that failed last time; empty when nothing is."""
        return "; ".join(f"{endpoint}: {trouble}" for endpoint, trouble in self._wrong.items())[
            :MOST_CHARACTERS
        ]
