"""What the round machine is told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from engram.errors import ProtocolError
from engram.federation.messages import Consolidated, Evaluation, Offer, Update


@dataclass(frozen=True)
class Joined:
    """A worker has said hello, for the first time or again; `holds` is the order whose answer it has ready
    or is working on, as (task, round) with round 0 for consolidation.
    """

    worker: str
    holds: tuple[int, int] | None = None


@dataclass(frozen=True)
class Left:
    """A worker's connection is gone; `leaving`: it said that it was told to stop."""

    worker: str
    leaving: bool = False


@dataclass(frozen=True)
class Failed:
    """A worker has reported why it is about to end, and with which exit code."""

    worker: str
    text: str
    exit_code: int
    cause: str = ""
    """Reason of the error, as in `engram.errors`."""


@dataclass(frozen=True)
class UpdateIn:
    """An update has passed validation."""

    worker: str
    task: int
    round: int


@dataclass(frozen=True)
class Spoilt:
    """An answer of a worker has not passed validation; the worker was told."""

    worker: str


@dataclass(frozen=True)
class ConsolidatedIn:
    """A worker has ended the task."""

    worker: str
    task: int


@dataclass(frozen=True)
class EvaluationIn:
    """A worker has counted its right predictions; `round` 0 is the evaluation at the task's end."""

    worker: str
    task: int
    round: int


@dataclass(frozen=True)
class Resized:
    """The job's groups have so many workers now; those beyond are gone until they have more again."""

    replicas: Mapping[str, int]


@dataclass(frozen=True)
class Tick:
    """Time has passed."""


Answer: TypeAlias = UpdateIn | ConsolidatedIn | EvaluationIn
Event: TypeAlias = Joined | Left | Failed | UpdateIn | ConsolidatedIn | EvaluationIn | Spoilt | Resized | Tick


def announced(worker: str, offer: Offer) -> Answer:
    """Return the event that an offered answer will be. Raises ProtocolError when it is none."""
    if offer.size < 1:
        raise ProtocolError("an answer of no bytes is offered")
    match offer.kind:
        case Update.__name__:
            return UpdateIn(worker, offer.task, offer.round)
        case Consolidated.__name__:
            return ConsolidatedIn(worker, offer.task)
        case Evaluation.__name__:
            return EvaluationIn(worker, offer.task, offer.round)
    raise ProtocolError(f"{offer.kind[:40]!r} is offered, which is no answer")


def asked_by(answer: Answer) -> Literal["round", "consolidate", "evaluate"]:
    """Return the stage that `answer` answers."""
    if isinstance(answer, UpdateIn):
        return "round"
    return "consolidate" if isinstance(answer, ConsolidatedIn) else "evaluate"


def position_of(answer: Answer) -> tuple[int, int]:
    """Return task and round of `answer`; round 0 is a task's end."""
    return answer.task, 0 if isinstance(answer, ConsolidatedIn) else answer.round
