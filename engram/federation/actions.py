"""What the round machine wants done. The aggregator carries a list of these out in its order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias


@dataclass(frozen=True)
class Cursor:
    """Where a run stands between two stages: what comes next. It is all that a restart needs."""

    task: int = 1
    """The current task; one more than the last when the run is complete."""
    round: int = 1
    """The next round to run; 0: the task's consolidation."""
    members: tuple[str, ...] = ()
    """Workers known to the run, sorted; grows and shrinks with elastic groups only."""
    pace: tuple[float, ...] = ()
    """Median seconds of the workers in the last rounds, the newest last; empty without a straggler factor."""


@dataclass(frozen=True)
class Greet:
    """Answer a hello; `resend`: ask for the answer that the worker holds, to (task, round) `holds` where that
    is not the stage's.
    """

    worker: str
    resend: bool = False
    holds: tuple[int, int] | None = None


@dataclass(frozen=True)
class Hold:
    """Tell a worker that there is nothing to do for it now."""

    worker: str


@dataclass(frozen=True)
class BeginTask:
    """Make the weights that the task starts from."""

    task: int


@dataclass(frozen=True)
class OpenStage:
    """A stage begins that asks `workers`; `round` 0 is the task's end (consolidation, final evaluation)."""

    kind: Literal["round", "consolidate", "evaluate"]
    task: int
    round: int
    workers: tuple[str, ...]


@dataclass(frozen=True)
class SendTrain:
    """Send the round's weights."""

    worker: str
    task: int
    round: int


@dataclass(frozen=True)
class SendConsolidate:
    """Send the task's final weights."""

    worker: str
    task: int


@dataclass(frozen=True)
class SendEvaluate:
    """Ask a worker to evaluate."""

    worker: str
    task: int
    round: int


@dataclass(frozen=True)
class Acknowledge:
    """Tell a worker that its answer counts; round 0 is consolidation."""

    worker: str
    task: int
    round: int


@dataclass(frozen=True)
class Refuse:
    """Tell a worker that its answer does not count; `reason` is one of `messages.Reject`."""

    worker: str
    task: int
    round: int
    reason: str

    @property
    def sentence(self) -> str:
        """Say so to a person."""
        answer = f"the answer to round {self.round} of" if self.round else "the end of"
        return f"{answer} task {self.task} is not wanted: {self.reason}"


@dataclass(frozen=True)
class Aggregate:
    """Close a round over the updates of `workers` (sorted), `absent` ones missing."""

    task: int
    round: int
    workers: tuple[str, ...]
    absent: tuple[str, ...]


@dataclass(frozen=True)
class CloseTask:
    """End a task with the consolidation results of `workers` (sorted), `absent` ones missing."""

    task: int
    workers: tuple[str, ...]
    absent: tuple[str, ...]


@dataclass(frozen=True)
class EvaluateHere:
    """Evaluate the global model on the aggregator's test set; `round` 0 is the task's end."""

    task: int
    round: int


@dataclass(frozen=True)
class SumEvaluations:
    """Sum the counts that `workers` sent."""

    task: int
    round: int
    workers: tuple[str, ...]


@dataclass(frozen=True)
class Checkpoint:
    """Complete the history's row of (task, round), write a checkpoint and continue at `cursor`."""

    task: int
    round: int
    cursor: Cursor


@dataclass(frozen=True)
class Degraded:
    """The deadline has passed below the quorum and the run goes on waiting."""

    task: int
    round: int
    have: int
    needed: int
    missing: tuple[str, ...]

    @property
    def sentence(self) -> str:
        """Say so to a person."""
        what = f"round {self.round} of task {self.task}" if self.round else f"end of task {self.task}"
        return (
            f"{what}: {self.have} of {self.needed} needed workers are in; "
            f"waiting for {', '.join(self.missing) or 'any worker'}"
        )


@dataclass(frozen=True)
class End:
    """The run is over: tell every worker."""

    reason: Literal["complete", "failed"]
    message: str
    exit_code: int = 0
    cause: str = ""
    """Reason of the error that ended it, as in `engram.errors`."""


Letter: TypeAlias = Greet | Hold | SendTrain | SendConsolidate | SendEvaluate | Acknowledge | Refuse
"""Actions that are one message to one worker."""

Action: TypeAlias = (
    Letter
    | BeginTask
    | OpenStage
    | Aggregate
    | CloseTask
    | EvaluateHere
    | SumEvaluations
    | Checkpoint
    | Degraded
    | End
)
