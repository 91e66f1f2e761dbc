"""How the aggregator verifies what a worker shows: it derives the token again (`engram.spec.tokens`)."""

from __future__ import annotations

import hmac
from collections.abc import Callable

from engram.spec.tokens import worker_token


def authenticator(key: bytes, uid: str) -> Callable[[str, str], bool]:
    """Return a function (worker, token) -> whether the token is that worker's; compares in constant time."""

    def authenticate(worker: str, token: str) -> bool:
        return hmac.compare_digest(worker_token(key, uid, worker).encode(), token.encode())

    return authenticate
