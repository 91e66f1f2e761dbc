"""When a new status is written: at once if it says something new, else not more often than people can read.

Figures change with every round and every pod; each write goes to etcd and to everybody who watches.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from engram_operator.model import JobKey
from engram_operator.patching import decisive

IGNORED_SECONDS = 300.0
"""After which a status is sent again that the API server did not keep as it was sent."""


class _Written(NamedTuple):
    time: float
    digest: bytes


class Pace:
    """Remembers when the status of each job was written last."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._written: dict[JobKey, _Written] = {}

    def __len__(self) -> int:
        return len(self._written)

    def wait(self, key: JobKey, old: Mapping[str, Any], new: Mapping[str, Any], seconds: float) -> float:
        """Return the seconds to wait before `new` is written over `old`; 0: now.

        `seconds` is the shortest time between two writes that change figures only. The same status twice in a
        row means that the API server drops a part of it (a CRD that does not know it): that never settles.
        """
        last = self._written.get(key)
        if last is None:
            return 0.0
        passed = self._clock() - last.time
        if _digest(new) == last.digest:
            return max(0.0, IGNORED_SECONDS - passed)
        return 0.0 if decisive(old, new) else max(0.0, seconds - passed)

    def written(self, key: JobKey, status: Mapping[str, Any]) -> None:
        """The status of `key` was written."""
        self._written[key] = _Written(self._clock(), _digest(status))

    def forget(self, key: JobKey) -> None:
        """Drop what is remembered of a job that is gone."""
        self._written.pop(key, None)


def _digest(status: Mapping[str, Any]) -> bytes:
    return hashlib.sha256(json.dumps(status, sort_keys=True, default=str).encode()).digest()
