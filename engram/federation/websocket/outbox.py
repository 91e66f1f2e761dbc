"""What waits to be sent to one worker; an order that a newer one overtakes is never sent.

So a worker on a slow link costs the aggregator one model, not one a round.
"""

from __future__ import annotations

import asyncio

from engram.federation.messages import Consolidate, Down, Evaluate, Train

REPLACEABLE = (Train, Evaluate)
"""Orders that are void once a newer order exists; a task's end never is: it makes the worker's state."""


class Outbox:
    """A queue of messages for one connection; used in the event loop only."""

    def __init__(self) -> None:
        self._waiting: list[Down] = []
        self._ended = False
        self._changed = asyncio.Event()

    def put(self, message: Down) -> None:
        """Add a message."""
        if isinstance(message, (*REPLACEABLE, Consolidate)):
            self._waiting = [kept for kept in self._waiting if not isinstance(kept, REPLACEABLE)]
        self._waiting.append(message)
        self._changed.set()

    def end(self) -> None:
        """Let `get` return None after what is waiting."""
        self._ended = True
        self._changed.set()

    async def get(self) -> Down | None:
        """Return the next message, or None at the end."""
        while not self._waiting and not self._ended:
            self._changed.clear()
            await self._changed.wait()
        return self._waiting.pop(0) if self._waiting else None
