"""What a worker has to send on one connection, in the order in which it goes.

Small messages go at once. An answer that is too large for that is offered, and goes in pieces when there is
credit for it; small ones go in between, so that heartbeats do not wait for a long upload. Used in the network
thread only.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator

from engram.federation.codec import Encoded, Encoder, Parts
from engram.federation.messages import (
    Answer,
    Consolidated,
    Credit,
    Evaluation,
    Message,
    NoCredit,
    Offer,
    Update,
)
from engram.federation.pieces import pieces_of


class Uplink:
    """A queue of messages, and large answers that wait for credit; one is kept until it is heard of."""

    def __init__(self) -> None:
        self.whole_bytes: int | None = None
        """Largest message that goes unasked, as the welcome says; None before it."""
        self._encoder = Encoder()
        self._small: deque[Encoded] = deque()
        self._large: deque[tuple[Answer, Encoded]] = deque()
        """Answers to offer one after the other; the first one is offered."""
        self._number = 0
        self._pieces: Iterator[Parts] | None = None
        """Of the first large answer, once it has credit; when all are sent it still waits for word."""
        self._ended = False
        self._changed = asyncio.Event()

    def put(self, message: Message) -> None:
        """Add a message; a large answer takes the place of updates that it has overtaken."""
        encoded = self._encoder.encode(message)
        whole = self.whole_bytes is None or encoded.size <= self.whole_bytes
        if whole or not isinstance(message, Update | Consolidated | Evaluation):
            self._small.append(encoded)
        else:
            first = self._large[0] if self._large else None
            kept = [item for item in self._large if isinstance(item[0], Consolidated)]
            self._large = deque([*kept, (message, encoded)])
            if self._large[0] is not first:
                self._offer()
        self._changed.set()

    def credit(self, message: Credit) -> None:
        """Begin to send what was offered."""
        if message.offer == self._number and self._large and self._pieces is None:
            self._pieces = pieces_of(self._number, self._large[0][1].cuts())
            self._changed.set()

    def no_credit(self, message: NoCredit) -> None:
        """Offer it again from its start, even if all of it was sent; or forget it, in or not wanted."""
        if message.offer != self._number or not self._large:
            return
        if not message.again:
            self._large.popleft()
        self._offer()
        self._changed.set()

    def end(self) -> None:
        """Let `get` return None after the small messages that wait: nobody is there for the others."""
        self._ended = True
        self._changed.set()

    @property
    def flowing(self) -> bool:
        """Whether there is credit for an answer, or there was for all of it."""
        return self._pieces is not None

    async def get(self) -> Encoded | Parts | None:
        """Return the next message or piece to send; None at the end."""
        while True:
            if self._small:
                return self._small.popleft()
            if self._ended:
                return None
            if self._pieces is not None:
                piece = next(self._pieces, None)
                if piece is not None:
                    return piece
            self._changed.clear()
            await self._changed.wait()

    def _offer(self) -> None:
        """Offer the first large answer, if there is any."""
        self._pieces = None
        if not self._large:
            return
        self._number += 1
        answer, encoded = self._large[0]
        round = 0 if isinstance(answer, Consolidated) else answer.round
        offer = Offer(self._number, type(answer).__name__, answer.task, round, encoded.size)
        self._small.append(self._encoder.encode(offer))
