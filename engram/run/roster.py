"""How many workers each group has now: what a change of replicas means for a running job.

The operator rewrites the mounted ConfigMap and the kubelet updates the files within about a minute. Workers
beyond the new number are gone until it grows again, so that no round waits for them; new ones just say hello.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from engram.errors import ConfigurationError
from engram.spec import FederatedIncrementalJob, load_job
from engram.spec.names import SpecKey


class Roster:
    """Reads the replicas of a job's groups again when their file has changed.

    That is the file `replicas` beside the job file, where the operator keeps one (`group number` a line),
    else the job file itself. The job file of a computed split keeps the replicas of the start, over which it
    is computed; the other file tells which of them rest.
    """

    def __init__(
        self, path: Path, job: FederatedIncrementalJob, changed: Callable[[int], None] = lambda workers: None
    ) -> None:
        """`path` is the file that `job` was read from; `changed` is told the new number of workers."""
        self._job, self._list = path, path.with_name(SpecKey.REPLICAS.value)
        self._changed = changed
        self._now = _replicas(job)
        self._resized: Mapping[str, int] | None = None
        self._seen = None if self._list.exists() else _stamp(path)

    def __call__(self) -> Mapping[str, int] | None:
        """Return group -> replicas as they are now; None while they are those of the start.

        A file that cannot be read changes nothing; neither does one that names other groups.
        """
        path = self._list if self._list.exists() else self._job
        stamp = _stamp(path)
        if stamp is None or stamp == self._seen:
            return self._resized
        self._seen = stamp
        try:
            found = _replicas(load_job(path)) if path == self._job else _listed(path)
        except (ConfigurationError, OSError, ValueError):
            return self._resized
        if found.keys() == self._now.keys() and found != self._now:
            self._resized = self._now = found
            self._changed(sum(found.values()))
        return self._resized


def _replicas(job: FederatedIncrementalJob) -> dict[str, int]:
    return {group.name: group.replicas for group in job.spec.workers}


def _listed(path: Path) -> dict[str, int]:
    """Return the lines `group number` of a file. Raises ValueError for any other."""
    rows = [line.split() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    return {group: int(number) for group, number in rows}


def _stamp(path: Path) -> tuple[str, int, int] | None:
    """Return what tells one content of a file from the next; the kubelet changes a link, not bytes."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return str(path), found.st_ino, found.st_mtime_ns
