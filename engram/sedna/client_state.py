"""What the aggregator's side remembers of one Sedna connection.

The wire says neither which round an update belongs to nor that it is sent for the second time, so both are
known from what the client was last given. A client trains, uploads, and only then reads the newest weights:
whoever is still training gets none, because it would read them as the answer to a later upload.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from engram.federation.messages import Train
from engram.sedna.wire import Upload

RESEND_SECONDS = 5.0
"""A client sends its whole update again when sending has taken longer than this."""
SLOWEST_DEFLATE = 1_000_000
"""Bytes of JSON that the weakest client compresses in a second before it sends them."""


@dataclass(frozen=True)
class Received:
    """An upload's bytes, as far as they tell whether the client may send them again."""

    digest: bytes
    size: int
    slow: bool
    """It took so long, or is so large, that the client may have given up waiting."""

    @classmethod
    def of(cls, text: str | bytes, seconds: float) -> Received:
        """Return what is kept of a message that took `seconds` to arrive."""
        data = text.encode(errors="surrogatepass") if isinstance(text, str) else text
        slow = seconds + len(data) / SLOWEST_DEFLATE >= RESEND_SECONDS
        return cls(hashlib.blake2b(data, digest_size=16).digest(), len(data), slow)


@dataclass(eq=False)
class Client:
    """One connection, from the handshake on."""

    trusted: str = ""
    """The worker that it proved by a token to be."""
    id: str = ""
    """What it subscribed as; empty: it has not yet."""
    worker: str = ""
    trains: int = 1
    """The round that its next upload belongs to: one more than that of the weights it was given. A client
    that was given none trains a model of its own, which only the first round can use."""
    waits: bool = False
    """It has uploaded and reads now."""
    order: Train | None = None
    """The open round, until its answer is in."""
    parked: Upload | None = None
    """An upload of the first round that came before the round was open."""
    last: Received | None = None
    beat: float = float("-inf")
    """When it last counted as alive."""
    finished: bool = False
    """It was sent the end of the run."""

    def repeats(self, received: Received) -> bool:
        """Return whether these bytes are the last upload once more.

        Equal bytes alone prove nothing: training that changes nothing sends them in every round.
        """
        return self.last is not None and self.last.digest == received.digest and self.last.slow
