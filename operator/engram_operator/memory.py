"""What this process remembers of jobs between two looks; all of it may be lost at any time.

Nothing here decides anything that the cluster does not say as well: it only saves requests, and carries the
API server's refusals from the write that met them to the status that explains them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from engram_operator.model import JobKey, Object

_NEVER = float("-inf")


@dataclass
class Known:
    """Of one job."""

    trusted_until: float = _NEVER
    """Until when the children are believed to be as they were read."""
    generation: object = None
    batch_jobs: set[str] = field(default_factory=set)
    """Uids of the batch Jobs that were there at the last look."""
    refused: dict[str, str] = field(default_factory=dict)
    """Objects that the API server refused to make, and why."""
    taken: set[str] = field(default_factory=set)
    """Batch Jobs under our names that are not ours: no watch shows them."""
    terminating: bool = False
    """Whether the namespace is being deleted."""
    leftovers_since: float | None = None
    config: Object | None = None
    """The ConfigMap `<job>-spec` as it was read or written last: what a job started with never changes."""


class Memory:
    """Of all jobs that are not finished."""

    def __init__(self) -> None:
        self._known: dict[JobKey, Known] = {}

    def __len__(self) -> int:
        return len(self._known)

    def of(self, key: JobKey) -> Known:
        """Return what is known of `key`, for reading and changing."""
        return self._known.setdefault(key, Known())

    def distrust(self, key: JobKey) -> None:
        """Have the children of `key` read at the next look."""
        if key in self._known:
            self._known[key].trusted_until = _NEVER

    def forget(self, key: JobKey) -> None:
        """Drop what is known of a job that is gone or finished."""
        self._known.pop(key, None)
