"""Which handshakes become connections, and how many did not.

Refusals are counted, not kept: strangers may ask for entrance as often as they like while the aggregator,
which takes the count over, is busy.
"""

from __future__ import annotations

import http
import logging
from collections import Counter
from collections.abc import Callable, Iterator

from websockets.asyncio.server import ServerConnection
from websockets.http11 import Request, Response

from engram.federation.websocket.wire import PATH, WORKER_HEADER, header_of, token_of

log = logging.getLogger(__name__)


class Entrance:
    """Answers handshakes, in the event loop."""

    def __init__(self, authenticate: Callable[[str, str], bool]) -> None:
        self._authenticate = authenticate
        self._refused: Counter[str] = Counter()
        """Why -> how often since the start; written in the loop only."""
        self._told: Counter[str] = Counter()
        """Of these, what `refusals` has returned; touched by its caller's thread only."""

    def admit(self, connection: ServerConnection, request: Request, *, full: bool) -> Response | None:
        """Answer a handshake that is not to become a connection; None lets it through.

        `full`: there are as many connections as there may be.
        """
        if request.path.partition("?")[0] != PATH:
            return connection.respond(http.HTTPStatus.NOT_FOUND, f"engram listens on {PATH}\n")
        worker = header_of(request, WORKER_HEADER)
        if not self._authenticate(worker, token_of(header_of(request, "Authorization"))):
            return self._turn_away(connection, worker, 401, "unknown worker or wrong token")
        if full:
            return self._turn_away(connection, worker, 503, "too many connections")
        return None

    def refusals(self) -> Iterator[str]:
        """Yield why somebody was turned away, once for each time since the last call."""
        for why, count in list(self._refused.items()):
            told, self._told[why] = self._told[why], count
            for _ in range(count - told):
                yield why

    def _turn_away(self, connection: ServerConnection, worker: str, status: int, why: str) -> Response:
        log.warning("a connection as %r was refused: %s", worker[:80], why)
        self._refused[why] += 1
        return connection.respond(status, f"{why}\n")
