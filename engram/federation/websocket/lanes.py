"""How many large messages are sent at once: of those that wait for their turn no bytes are in our memory.

One that does not read keeps nobody waiting for long.
"""

from __future__ import annotations

import asyncio

from engram.federation.codec import Encoded
from engram.federation.websocket.stream import ServerStream

LANES, LANE_SECONDS = 32, 1.0
"""So many large messages are sent at once, beside those that have taken longer than so many seconds."""
SMALL = 16 * 1024
"""Messages of up to so many bytes do not wait for a lane."""


class Lanes:
    """The lanes of a server; used in the event loop only."""

    def __init__(self) -> None:
        self._free = asyncio.Semaphore(LANES)

    async def transmit(self, socket: ServerStream, encoded: Encoded) -> None:
        """Send a message when its turn has come. Raises ConnectionClosed."""
        if encoded.size <= SMALL:
            await socket.transmit(encoded)
            return
        await self._free.acquire()
        lane = [self._free]
        timer = asyncio.get_running_loop().call_later(LANE_SECONDS, lambda: lane.pop().release())
        try:
            await socket.transmit(encoded)
        finally:
            timer.cancel()
            if lane:
                lane.pop().release()
