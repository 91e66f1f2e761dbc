"""How many bytes of the messages that come unasked may be under way at once: who has no room is not read.

Its bytes then wait at the worker and in the kernel, not in our memory. Used in the event loop only.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

SLOW_SECONDS = 1.0
"""A message that takes longer to come leaves its room to others: a slow link keeps nobody waiting."""


class Ticket:
    """Room for one message."""

    def __init__(self, gate: Gate, size: int) -> None:
        self.size = size
        self._gate: Gate | None = gate
        self._timer = asyncio.get_running_loop().call_later(SLOW_SECONDS, self.leave)

    def arrived(self) -> None:
        """Note that the message is whole: from now on it is for us to be quick."""
        self._timer.cancel()

    def leave(self) -> None:
        """Give the room back, once."""
        self._timer.cancel()
        gate, self._gate = self._gate, None
        if gate is not None:
            gate.left(self)


class Gate:
    """Lets messages in, in the order in which they come, as long as there is room."""

    def __init__(self, room: int) -> None:
        """`room`: bytes. A message that is larger comes in alone."""
        self._room = room
        self._used = 0
        self._waiting: deque[tuple[int, Callable[[Ticket], None]]] = deque()
        self._opening = False

    def enter(self, size: int, opened: Callable[[Ticket], None]) -> Ticket | None:
        """Return room for a message of `size` bytes; None: `opened` is called with it when there is some."""
        if not self._waiting and self._fits(size):
            return self._ticket(size)
        self._waiting.append((size, opened))
        return None

    def left(self, ticket: Ticket) -> None:
        """Take room back and let in who waits for it."""
        self._used -= ticket.size
        if self._opening:
            return  # called by one who was let in: the loop below goes on
        self._opening = True
        try:
            while self._waiting and self._fits(self._waiting[0][0]):
                size, opened = self._waiting.popleft()
                opened(self._ticket(size))
        finally:
            self._opening = False

    def _fits(self, size: int) -> bool:
        return self._used == 0 or self._used + size <= self._room

    def _ticket(self, size: int) -> Ticket:
        self._used += size
        return Ticket(self, size)
