"""The time of a run: starts at the wall clock's and then only goes forward, however the wall clock jumps."""

from __future__ import annotations

import time


class Clock:
    """Called, returns seconds since the epoch by a clock that never goes back."""

    def __init__(self) -> None:
        self._offset = time.time() - time.monotonic()

    def __call__(self) -> float:
        """Return the time now."""
        return self._offset + time.monotonic()
