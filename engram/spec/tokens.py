"""Worker tokens: one secret a worker, all derived from one key, so that newcomers need no new secret.

A token is HMAC-SHA256(key, job uid / worker name). The operator writes them into the worker-tokens Secret,
the local runner hands them to its processes, and the aggregator recomputes what it is shown.
"""

from __future__ import annotations

import hashlib
import hmac


def worker_token(key: bytes, uid: str, worker: str) -> str:
    """Return the token of `worker` in the job `uid`, 64 hexadecimal digits."""
    return hmac.new(key, f"{uid}/{worker}".encode(), hashlib.sha256).hexdigest()
