"""What both ends of a WebSocket connection agree on."""

from __future__ import annotations

PATH = "/v1/federation"
SUBPROTOCOL = "engram.v1"
WORKER_HEADER = "Engram-Worker"
"""Names the worker at the handshake, so that its token is checked before a connection exists."""

CLOSE_BAD_MESSAGE = 1002
CLOSE_NO_HELLO = 4000
CLOSE_REPLACED = 4001
"""A newer connection of the same worker has taken over."""
CLOSE_REFUSED = 4003


def bearer(token: str) -> str:
    """Return the value of the Authorization header."""
    return f"Bearer {token}"


def token_of(authorization: str) -> str:
    """Return the token of an Authorization header; empty when it has none."""
    scheme, _, token = authorization.partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""
