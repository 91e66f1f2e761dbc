"""Ctrl-C and SIGTERM as a flag: the first asks for a checkpoint and an end, the second ends at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)

STOPPING = "stopping: saving a checkpoint (once more Ctrl-C: at once)"
"""What the user sees after the first Ctrl-C."""


class Stop:
    """A stop request that waits can watch."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._requests = 0

    def request(self) -> None:
        """Ask to stop; a second request asks to stop at once."""
        self._requests += 1
        self._event.set()

    def __call__(self) -> bool:
        """Tell whether to stop."""
        return self._event.is_set()

    @property
    def at_once(self) -> bool:
        """True after a second request."""
        return self._requests > 1

    def wait(self, seconds: float) -> bool:
        """Wait for a request, at most `seconds`; return whether there was one."""
        return self._event.wait(seconds)

    @property
    def event(self) -> threading.Event:
        """The event behind, for code that waits on several things."""
        return self._event

    @contextmanager
    def on_signals(self, *, raise_second: bool = False) -> Iterator[Stop]:
        """Turn signals into requests within the block; the handlers before are put back.

        `raise_second`: the second Ctrl-C raises KeyboardInterrupt where the program is, for work that does
        not look at the flag often. Does nothing outside the main thread, where Python has no signals.
        """
        if threading.current_thread() is not threading.main_thread():
            yield self
            return

        def handle(number: int, frame: FrameType | None) -> None:
            self.request()
            if raise_second and self.at_once:
                raise KeyboardInterrupt

        before = {number: signal.signal(number, handle) for number in SIGNALS}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
