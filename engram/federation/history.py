"""What a run remembers of itself: one row a round, one a task, and counts of faults survived.

The aggregator keeps the history in its checkpoint, so that it survives restarts; the report and the live
status are made from it. `Observer` is how the same facts reach a display or a metrics exporter while they
happen.
"""

from __future__ import annotations

from typing import Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field

from engram.federation.messages import Heartbeat, Hello, Reject

WorkerState = Literal["connected", "training", "uploading", "disconnected", "finished", "failed"]


class Row(BaseModel):
    """Base of the rows: plain JSON, unknown keys refused."""

    model_config = ConfigDict(extra="forbid")


class WorkerRound(Row):
    """One worker's part in one round (or in consolidation)."""

    outcome: Literal["accepted", "abstained", "absent"]
    samples: int = 0
    metrics: dict[str, float] = Field(default_factory=dict)
    bytes_down: int = 0
    bytes_up: int = 0


class Counts(Row):
    """Right predictions and totals by label id (JSON keys are strings)."""

    right: dict[int, int]
    total: dict[int, int]
    right_unseen: dict[int, int] = Field(default_factory=dict)


class RoundRow(Row):
    """A closed round; `seconds` has the keys broadcast, train, upload, aggregate, evaluate, checkpoint (those
    that apply).
    """

    task: int
    round: int
    started: float
    """Seconds since the epoch."""
    seconds: dict[str, float]
    workers: dict[str, WorkerRound]
    degraded: bool = False
    """Closed by its deadline with the quorum, not with all sampled workers."""
    counts: Counts | None = None
    """Global model after this round, when `evaluation.every` is round."""


class TaskRow(Row):
    """A finished task: its consolidation and the evaluation of the global model."""

    task: int
    classes: list[int]
    started: float
    seconds: dict[str, float]
    """consolidate, evaluate, checkpoint, and total for the whole task."""
    counts: Counts
    workers: dict[str, WorkerRound]


class Faults(Row):
    """What went wrong and was survived."""

    reconnects: dict[str, int] = Field(default_factory=dict)
    rejected: dict[str, int] = Field(default_factory=dict)
    rounds_degraded: int = 0
    resumes: int = 0
    notes: list[str] = Field(default_factory=list)


class History(Row):
    """Everything above, for the whole run so far."""

    rounds: list[RoundRow] = Field(default_factory=list)
    tasks: list[TaskRow] = Field(default_factory=list)
    initial: Counts | None = None
    faults: Faults = Field(default_factory=Faults)
    active_seconds: float = 0.0


class Observer(Protocol):
    """Told what happens while it happens. Must not raise and must be quick."""

    def worker_changed(self, worker: str, state: WorkerState) -> None:
        """A worker's state as the aggregator sees it."""
        ...

    def introduced(self, worker: str, hello: Hello) -> None:
        """A worker was accepted, for the first time or again: what it says of itself."""
        ...

    def worker_failed(self, worker: str, text: str, exit_code: int) -> None:
        """A worker has said why it is about to end; the first line of `text` is the sentence."""
        ...

    def heartbeat(self, worker: str, beat: Heartbeat) -> None:
        """A sign of life with progress and memory."""
        ...

    def transferred(self, worker: str, direction: Literal["down", "up"], size: int) -> None:
        """Bytes on the wire (or what they would be, in process)."""
        ...

    def rejected(self, worker: str, reject: Reject) -> None:
        """An answer or a connection of a worker was refused: why, and where the run was."""
        ...

    def round_started(self, task: int, round: int) -> None:
        """The weights go out."""
        ...

    def consolidation_started(self, task: int) -> None:
        """The task's rounds are closed: workers choose exemplars and send what the algorithm keeps of it."""
        ...

    def evaluation_started(self, task: int, round: int) -> None:
        """The global model is tested, here or by the workers; `round` 0: at the task's end."""
        ...

    def round_closed(self, row: RoundRow, history: History) -> None:
        """A round is aggregated and durable."""
        ...

    def task_closed(self, row: TaskRow, history: History) -> None:
        """A task is consolidated, evaluated and durable."""
        ...

    def finished(self, reason: str, message: str, history: History) -> None:
        """The run is over: complete, failed or suspended."""
        ...
