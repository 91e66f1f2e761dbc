"""Worker tokens: one secret a worker, all derived from one key, so that newcomers need no new secret.

A token is HMAC-SHA256(key, job uid / worker name). The operator writes them into the worker-tokens Secret,
the local runner hands them to its processes, and the aggregator recomputes what it is shown.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable


def worker_token(key: bytes, uid: str, worker: str) -> str:
    """Return the token of `worker` in the job `uid`, 64 hexadecimal digits."""
    return hmac.new(key, f"{uid}/{worker}".encode(), hashlib.sha256).hexdigest()


def authenticator(key: bytes, uid: str) -> Callable[[str, str], bool]:
    """Return a function (worker, token) -> whether the token is that worker's; compares in constant time."""

    def authenticate(worker: str, token: str) -> bool:
        return hmac.compare_digest(worker_token(key, uid, worker).encode(), token.encode())

    return authenticate
