"""What the live status remembers of one worker, and how it says it.

A worker's refusals are kept by reason, so that one that a person must know of is not hidden by a late answer
that came after it. The operator decides from them who is not fine: it knows in which round a worker's answer
was refused last and in which it was accepted last.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from engram.federation.history import WorkerState

MESSAGE_CHARACTERS = 256
"""Longest message of one worker, as in the API."""

_ORDER = ("failed", "disconnected", "training", "uploading", "connected", "finished")
_NOT_FINE = _ORDER[:2]


@dataclass(frozen=True)
class Refused:
    """Answers and connections of a worker that were refused for one reason."""

    count: int
    round: int
    """Of the newest one: where the run was, counted over the whole run."""
    message: str
    """Of the newest one."""


@dataclass
class WorkerView:
    """What the aggregator knows of one worker at this moment."""

    name: str
    group: str
    state: WorkerState | None = None
    message: str = ""
    """What is wrong with it, or was on its way here."""
    device: str = ""
    round: int = 0
    accepted: int = 0
    """Newest round, over the whole run, in which its answer counted; 0: none."""
    progress: float = 0.0
    """Share of the local steps of the round under way, 0..1."""
    loss: float | None = None
    memory_peak: int = 0
    """Most bytes that its heartbeats have told, of all of its processes."""
    last_seen: float | None = None
    """Seconds since the epoch."""
    bytes_down: int = 0
    bytes_up: int = 0
    reconnects: int = 0
    refused: dict[str, Refused] = field(default_factory=dict)
    """By reason, the newest last."""

    def refuse(self, reason: str, message: str, round: int) -> None:
        """Count an answer or a connection that was refused; `round` counts over the whole run."""
        before = self.refused.pop(reason, None)
        self.refused[reason] = Refused(before.count + 1 if before else 1, round, shortened(message))

    @property
    def rank(self) -> tuple[int, int]:
        """Sorts those that are not fine first: gone, then refused, then the others by state."""
        place = _ORDER.index(self.state or "connected")
        if self.state in _NOT_FINE:
            return 0, place
        return 1 if self.refused else 2, place

    def as_dict(self) -> dict[str, Any]:
        """Return the entry of `workerStatuses`."""
        status: dict[str, Any] = {
            "name": self.name,
            "group": self.group,
            "state": self.state,
            "device": self.device,
            "round": self.round,
            "acceptedRound": self.accepted,
            "percent": int(100 * self.progress),
            "reconnects": self.reconnects,
        }
        if self.refused:
            status["rejected"] = [
                {"reason": reason, "count": one.count, "round": one.round, "message": one.message}
                for reason, one in reversed(self.refused.items())
            ]
        if self.memory_peak:
            status["memoryBytes"] = self.memory_peak
        if self.message:
            status["message"] = self.message
        if self.loss is not None:
            status["loss"] = f"{self.loss:.4g}"
        if self.last_seen is not None:
            status["lastSeenTime"] = timestamp(self.last_seen)
        return status


def shortened(message: str) -> str:
    """Return a message of one worker as the API takes it: its beginning, if it is long."""
    longer = len(message) > MESSAGE_CHARACTERS
    return message[: MESSAGE_CHARACTERS - 1] + "…" if longer else message


def timestamp(seconds: float) -> str:
    """Return seconds since the epoch as Kubernetes writes a time: UTC, whole seconds."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
