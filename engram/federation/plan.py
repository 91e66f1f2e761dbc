"""What the round machine goes by: the part of a job that decides who is asked, for what and for how long."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from engram.federation.sampling import Quorum


@dataclass(frozen=True)
class Plan:
    """What a job fixes for the whole run."""

    workers: tuple[str, ...]
    rounds: tuple[int, ...]
    """Rounds of each task."""
    seed: int = 0
    client_fraction: float = 1.0
    quorum: Quorum = field(default_factory=Quorum)
    deadline_seconds: float = 600.0
    deadline_policy: Literal["Wait", "Fail"] = "Wait"
    straggler_factor: float | None = None
    """A round that has its quorum waits so many times as long as workers usually take; None: its deadline."""
    buffer: int = 0
    """Updates that make a round of asynchronous ones; 0: rounds ask workers and wait for them."""
    max_staleness: int = 0
    """Rounds that an update may be behind when rounds are asynchronous."""
    evaluate_on_workers: bool = False
    evaluate_every_round: bool = False
    elastic: bool = False
    consolidates: bool = True
    """False: workers know no tasks, so nobody is asked at a task's end."""
