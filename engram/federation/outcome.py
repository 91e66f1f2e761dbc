"""Where a run is, for a display, and how it ended, as every transport returns it to the runner."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from engram.federation.history import History
from engram.federation.machine import Kind
from engram.federation.messages import Tensors

Reason: TypeAlias = Literal["complete", "failed", "suspended"]


@dataclass(frozen=True)
class Outcome:
    """The end of a run."""

    reason: Reason
    message: str
    """One sentence for the user; empty when complete."""
    history: History
    weights: Tensors
    """The global model at the end, or as far as the run came."""
    exit_code: int = 1
    """What a process should end with when `reason` is failed: 42 when the user must change something."""
    cause: str = ""
    """Reason of the error that ended the run, as in `engram.errors`; empty: the exit code says enough."""


@dataclass(frozen=True)
class Status:
    """Where a run is."""

    stage: Kind
    task: int
    round: int
    """0 at a task's end: consolidation and its evaluation."""
    missing: tuple[str, ...]
    """Workers that the run waits for."""
    degraded: str
    """Why the run waits beyond its deadline; empty when it does not."""
