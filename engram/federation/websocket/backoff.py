"""How long a worker waits before it connects again: short after a cut, long when it is not wanted."""

from __future__ import annotations

import hashlib
import random

FIRST_DELAY, NORMAL_DELAY, LONG_DELAY = 0.1, 1.5, 30.0
LONG_AFTER = 600.0
"""After ten minutes without contact reconnects get rarer."""


class Backoff:
    """Seconds before each reconnect: .1 doubling to 1.5 (30 after ten minutes), each times .5 to 1."""

    def __init__(self, seed: str) -> None:
        self._random = random.Random(hashlib.sha256(seed.encode()).digest())
        self._failures = 0

    def reset(self) -> None:
        """Start over: there was contact."""
        self._failures = 0

    def next(self, silent: float, *, unwanted: bool = False) -> float:
        """Return the next delay after `silent` seconds without contact.

        `unwanted`: the connection was ended on purpose, by a namesake's or for what was said on it. Coming
        back at once would only repeat that, so the delays double up to 30 seconds.
        """
        most = LONG_DELAY if unwanted or silent >= LONG_AFTER else NORMAL_DELAY
        delay = min(most, FIRST_DELAY * 2.0 ** min(self._failures, 20))
        self._failures += 1
        return delay * (0.5 + 0.5 * self._random.random())
