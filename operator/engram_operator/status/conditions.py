"""metav1.Conditions: what is said of a job, and how it is merged into what was said before."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from engram.spec.names import Condition, Phase, Reason
from engram_operator.model import ConditionView, Object, conditions_of, parse_time

MOST_MESSAGE = 800
"""Characters of a condition's message: status stays under 10 KB with all conditions."""


@dataclass(frozen=True, slots=True)
class Statement:
    """A condition before it has a type and a time."""

    true: bool
    reason: Reason
    message: str = ""
    """Empty: the reason's own line of the user guide."""

    @property
    def text(self) -> str:
        """The message, never empty and never too long."""
        return shorten(self.message or self.reason.meaning, MOST_MESSAGE)


Statements = Mapping[Condition, Statement | None]
"""None takes back what was said: the condition goes."""

WAITING = frozenset({Reason.WAITING_FOR_AGGREGATOR, Reason.WAITING_FOR_WORKERS})
"""Reasons of a run that comes up: they change with its pods."""


def news_in(reason: object) -> object:
    """Return what a reason tells: a run that trains or consolidates is as it should be, with every task."""
    return Reason.TRAINING if reason == Reason.CONSOLIDATING else reason


def shorten(text: str, length: int) -> str:
    """Return `text` on one line with at most `length` characters."""
    line = " ".join(text.split())
    return line if len(line) <= length else line[: length - 1] + "…"


def squeeze(text: str, length: int) -> str:
    """Return `text` on one line with at most `length` characters, shortened in its middle.

    What is wrong comes first in a sentence of ours, and what to do last.
    """
    line = " ".join(text.split())
    if len(line) <= length:
        return line
    head = length // 2
    return f"{line[: head - 3]} … {line[len(line) - (length - head) :]}"


def timestamp(time: datetime) -> str:
    """Return a time as Kubernetes writes it: UTC, whole seconds."""
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def merge(
    old: Iterable[Mapping[str, Any]], statements: Statements, now: datetime, generation: int
) -> list[Object]:
    """Return the conditions in the order of `Condition`: `statements` over `old`.

    `lastTransitionTime` changes with `status` alone; conditions that nothing is said of stay as they were,
    and those that are taken back go.
    """
    before = {item["type"]: item for item in old}
    merged: list[Object] = []
    for kind in Condition:
        said = statements.get(kind)
        if said is None:
            merged.extend([dict(before[kind])] if kind in before and kind not in statements else [])
            continue
        status = "True" if said.true else "False"
        known = before.get(kind, {})
        unchanged = known.get("status") == status and known.get("lastTransitionTime")
        merged.append(
            {
                "type": str(kind),
                "status": status,
                "reason": str(said.reason),
                "message": said.text,
                "lastTransitionTime": known["lastTransitionTime"] if unchanged else timestamp(now),
                "observedGeneration": generation,
            }
        )
    return merged


def view(status: Mapping[str, Any], kind: Condition) -> ConditionView | None:
    """Return a condition of a status; None when it was never said."""
    return conditions_of(status).get(kind)


def holds(status: Mapping[str, Any], kind: Condition) -> bool:
    """Return whether a condition of a status is True."""
    found = view(status, kind)
    return found is not None and found.true


def phase_of(status: Mapping[str, Any]) -> Phase:
    """Return the phase that conditions and `startTime` say."""
    if holds(status, Condition.COMPLETE):
        return Phase.SUCCEEDED
    if holds(status, Condition.FAILED):
        return Phase.FAILED
    if holds(status, Condition.SUSPENDED):
        return Phase.SUSPENDED
    if not status.get("startTime"):
        return Phase.PENDING
    progressing = view(status, Condition.PROGRESSING)
    if progressing is None or progressing.true:
        return Phase.RUNNING if progressing else Phase.STARTING
    return Phase.REPORTING if progressing.reason in _OVER else Phase.STARTING


_OVER = (Reason.FINISHED, Reason.RUN_FAILED)
"""The aggregator has said that it is done, and has not ended: its record is being fetched."""
_DECIDING = {
    Phase.REPORTING: Condition.REPORT_READY,
    Phase.SUCCEEDED: Condition.COMPLETE,
    Phase.FAILED: Condition.FAILED,
    Phase.SUSPENDED: Condition.SUSPENDED,
    Phase.STARTING: Condition.PROGRESSING,
    Phase.PENDING: Condition.PROGRESSING,
}


def deciding(status: Mapping[str, Any]) -> ConditionView:
    """Return the condition that decides the phase: of a run under way, what is wrong with it, if anything."""
    phase = phase_of(status)
    found = view(status, _DECIDING.get(phase, Condition.PROGRESSING))
    if phase is Phase.RUNNING and holds(status, Condition.DEGRADED):
        found = view(status, Condition.DEGRADED)
    return found or ConditionView("Unknown", Reason.VALID)


def report_awaited(status: Mapping[str, Any]) -> bool:
    """Return whether a status says that the report is being made."""
    found = view(status, Condition.REPORT_READY)
    return found is not None and not found.true and found.reason == Reason.REPORT_PENDING


def active_seconds(status: Mapping[str, Any], now: datetime) -> float:
    """Return how long the run has been active: what was counted at the last suspension, and since then.

    `status.activeSeconds` is written when a suspension begins or the run ends, so counting costs no writes;
    the Suspended condition's last transition says since when the run goes on.
    """
    counted = float(status.get("activeSeconds") or 0)
    start = parse_time(status.get("startTime"))
    if start is None or status.get("completionTime"):
        return counted
    suspended = view(status, Condition.SUSPENDED)
    if suspended is None:
        return counted + max(0.0, (now - start).total_seconds())
    if suspended.true:
        return counted
    since = max(start, suspended.since or start)
    return counted + max(0.0, (now - since).total_seconds())
