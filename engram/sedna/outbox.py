"""What waits to be sent to one Sedna client.

Who else has subscribed is news that no client acts upon: little of it is kept for one that trains for hours.
"""

from __future__ import annotations

import asyncio
from collections import deque

from engram.sedna.dialect import Close, Out

MOST_NEWS = 1000
BROADCAST = '{"type":"recv_weight"'


class Outbox:
    """A queue for one connection; used in the event loop only."""

    def __init__(self) -> None:
        self._waiting: deque[Out] = deque()
        self._sending = False
        self._changed = asyncio.Event()

    def put(self, out: Out) -> None:
        """Add what to send."""
        if len(self._waiting) >= MOST_NEWS and _is_news(out):
            self._waiting = deque(kept for kept in self._waiting if not _is_news(kept))
        self._waiting.append(out)
        self._changed.set()

    async def get(self) -> Out:
        """Return what comes next; `sent` says that it has left."""
        while not self._waiting:
            self._changed.clear()
            await self._changed.wait()
        self._sending = True
        return self._waiting.popleft()

    def sent(self) -> None:
        """Note that the connection has taken the last one."""
        self._sending = False

    @property
    def empty(self) -> bool:
        """Nothing waits and nothing is being sent."""
        return not self._waiting and not self._sending


def _is_news(out: Out) -> bool:
    return not isinstance(out, Close) and not out.startswith(BROADCAST)
