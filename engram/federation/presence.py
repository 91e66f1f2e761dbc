"""Which worker is there, as far as the aggregator can tell: state only, no connection is closed by it."""

from __future__ import annotations

from typing import Literal

from engram.federation.history import Observer, WorkerState
from engram.federation.messages import Heartbeat

MISSED_HEARTBEATS = 3
"""After so many without a byte a worker shows as disconnected; it may still be training."""


class Presence:
    """Keeps every worker's state and tells the observer when it changes."""

    def __init__(self, observer: Observer, heartbeat_seconds: float) -> None:
        self._observer = observer
        self._silence = MISSED_HEARTBEATS * heartbeat_seconds
        self._states: dict[str, WorkerState] = {}
        self._heard: dict[str, float] = {}
        self._before: dict[str, WorkerState] = {}

    def joined(self, worker: str, now: float) -> bool:
        """Note a hello; return whether the worker was here before."""
        again = worker in self._states
        self._heard[worker] = now
        self._before.pop(worker, None)
        self.set(worker, "connected")
        return again

    def left(self, worker: str) -> None:
        """Note that a worker's connection is gone."""
        self._heard.pop(worker, None)
        self._before.pop(worker, None)
        if self._states.get(worker) not in ("failed", "finished"):
            self.set(worker, "disconnected")

    def heard(self, worker: str, now: float) -> None:
        """Note that the last bytes of a worker came at `now`, as a sign of life where that is news."""
        if now <= self._heard.get(worker, now):
            return
        self._heard[worker] = now
        if worker in self._before:
            self._show(worker, self._before.pop(worker))

    def tick(self, now: float) -> None:
        """Show workers that were silent for three heartbeats as disconnected."""
        for worker, heard in self._heard.items():
            silent = now - heard > self._silence
            if silent and worker not in self._before and self._states[worker] != "failed":
                self._before[worker] = self._states[worker]
                self._show(worker, "disconnected")

    def set(self, worker: str, state: WorkerState) -> None:
        """Set a worker's state; one that is silent shows it when it is heard again."""
        if worker in self._before:
            self._before[worker] = state
        else:
            self._show(worker, state)

    def _show(self, worker: str, state: WorkerState) -> None:
        """Keep what others see; the observer hears of changes only."""
        if self._states.get(worker) != state:
            self._states[worker] = state
            self._observer.worker_changed(worker, state)

    def states(self) -> dict[str, WorkerState]:
        """Return the state of every worker that was ever here."""
        return dict(self._states)


def state_of(beat: Heartbeat) -> Literal["connected", "training", "uploading"]:
    """Return a worker's state as its heartbeat has it."""
    if beat.state == "training":
        return "training"
    return "uploading" if beat.state == "uploading" else "connected"
