"""The whole `.status`, when it is worth a write, and the Events that go with it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from engram.spec.names import Condition, Phase, Reason
from engram_operator.model import Note, Object, parse_time
from engram_operator.status.conditions import (
    WAITING,
    Statements,
    deciding,
    holds,
    merge,
    news_in,
    phase_of,
    shorten,
    timestamp,
    view,
)
from engram_operator.status.lengths import in_bytes

MOST_BYTES = 10_000
"""Of a status as compact JSON."""
MOST_MESSAGE, MOST_CONDITION = 1024, 800
"""Bytes of the message of a status, and of a condition's or the aggregator's."""

_KEPT_TASKS, _KEPT_WORKERS = 10, 5


@dataclass(frozen=True)
class Content:
    """What a status holds beside conditions; None and empty parts are left out."""

    started: datetime | None = None
    completed: datetime | None = None
    active_seconds: int | None = None
    resumes: int = 0
    display: Mapping[str, Any] | None = None
    progress: Mapping[str, Any] | None = None
    aggregator: Mapping[str, Any] | None = None
    workers: Mapping[str, Any] | None = None
    worker_statuses: tuple[Object, ...] = ()
    metrics: Mapping[str, Any] | None = None
    tasks: tuple[Object, ...] = ()


def build_status(
    old: Mapping[str, Any], statements: Statements, content: Content, now: datetime, generation: int
) -> Object:
    """Return the status: conditions merged over those of `old`, phase and reason derived from them."""
    merged = merge(old.get("conditions") or (), statements, now, generation)
    status: Object = {"conditions": [_short(condition) for condition in merged]}
    if content.started is not None:
        status["startTime"] = timestamp(content.started)
    deciding_condition = deciding(status)
    full: Object = {
        "phase": str(phase_of(status)),
        "reason": deciding_condition.reason,
        "message": in_bytes(shorten, deciding_condition.message, MOST_MESSAGE),
        "observedGeneration": generation,
        "startTime": status.get("startTime"),
        "completionTime": timestamp(content.completed) if content.completed else None,
        "activeSeconds": content.active_seconds,
        "resumes": content.resumes or None,
        "conditions": status["conditions"],
        "display": content.display,
        "progress": content.progress,
        "aggregator": _short(content.aggregator or {}),
        "workers": content.workers,
        "workerStatuses": list(content.worker_statuses),
        "metrics": content.metrics,
        "tasks": list(content.tasks),
        "report": old.get("report"),
    }
    return _fit({key: value for key, value in full.items() if value not in (None, {}, [], "")})


def size_of(status: Mapping[str, Any]) -> int:
    """Return the bytes of a status as compact JSON."""
    return len(json.dumps(status, separators=(",", ":"), ensure_ascii=False).encode())


def _short(part: Mapping[str, Any]) -> Object:
    """Return a part of status whose message, if it has one, is not too long."""
    if not part.get("message"):
        return dict(part)
    return {**part, "message": in_bytes(shorten, part["message"], MOST_CONDITION)}


def _fit(status: Object) -> Object:
    """Leave out the oldest tasks and the least remarkable workers until the status is small enough."""
    for key, least, place in (
        ("tasks", _KEPT_TASKS, 0),
        ("workerStatuses", _KEPT_WORKERS, -1),
        ("tasks", 0, 0),
        ("workerStatuses", 0, -1),
    ):
        items = list(status.get(key) or ())
        while len(items) > least and size_of(status) > MOST_BYTES:
            items.pop(place)
            status = {**status, key: list(items)}
    return status


# When to write it.

_CALM = timedelta(seconds=30)
"""While a job comes up, pods change several times a second: for so long its counts wait for something new."""

_DECISIVE = (
    "phase",
    "startTime",
    "completionTime",
    "activeSeconds",
    "resumes",
    "observedGeneration",
    "report",
)


def write_in(old: Mapping[str, Any], new: Mapping[str, Any], now: datetime) -> float | None:
    """Return in how many seconds `new` is worth writing over `old`; 0: now; None: it says nothing new.

    What people and machines wait for is worth it at once. Counts are worth it too, but for the first seconds
    of a job, so that a thousand jobs that start at once cost few writes each. Estimates, memory, and what
    workers that are fine are doing, go with the next write. (How often figures are written is the
    controller's affair.)
    """
    if old == new:
        return None
    if _decisive(old) != _decisive(new):
        return 0.0
    if _without_estimate(old) == _without_estimate(new):
        return None
    start = parse_time(new.get("startTime"))
    if new["phase"] != Phase.STARTING or start is None:
        return 0.0
    return max(0.0, min(_CALM, start + _CALM - now).total_seconds())


def _decisive(status: Mapping[str, Any]) -> Any:
    conditions = [
        (item["type"], item["status"], "" if item["reason"] in WAITING else news_in(item["reason"]))
        for item in status.get("conditions") or ()
    ]
    troubled = [
        (item["name"], item.get("reason"))
        for item in status.get("workerStatuses") or ()
        if item.get("reason")
    ]
    workers = status.get("workers") or {}
    return (
        [status.get(key) for key in _DECISIVE],
        conditions,
        troubled,
        workers.get("desired"),
        workers.get("failed"),
        len(status.get("tasks") or ()),
    )


def _without_estimate(status: Mapping[str, Any]) -> Object:
    """Return a status without what moves while nothing happens."""
    progress = {k: v for k, v in (status.get("progress") or {}).items() if k != "estimatedCompletionTime"}
    workers = [
        {
            k: v
            for k, v in item.items()
            if k not in ("lastSeenTime", "memoryBytes", "state" if not item.get("reason") else "")
        }
        for item in status.get("workerStatuses") or ()
    ]
    aggregator = {k: v for k, v in (status.get("aggregator") or {}).items() if k != "memoryBytes"}
    return {**status, "progress": progress, "workerStatuses": workers, "aggregator": aggregator}


# What to tell.

_QUIET_SECONDS = 60.0
"""A run that was degraded again so soon after it had recovered tells no new Event: it would be a storm."""


def notes_of(old: Mapping[str, Any], new: Mapping[str, Any], now: datetime) -> tuple[Note, ...]:
    """Return one Event for the transition from `old` to `new`, or none.

    Reason and message are those of the condition that decides the phase. Waiting is not told, the start once
    (with the verdict on the spec), and of a run that flaps only the first turn of each minute.
    """
    reason, before = news_in(new.get("reason")), news_in(old.get("reason"))
    message = str(new.get("message", ""))
    if new.get("startTime") and not old.get("startTime") and reason in WAITING:
        accepted = view(new, Condition.ACCEPTED)
        return (Note("Normal", accepted.reason, accepted.message),) if accepted else ()
    notice = _notice(old, new)
    if reason == before or reason in WAITING or _flaps(old, new, now):
        return notice
    warning = new.get("phase") == Phase.FAILED or (
        reason not in (Reason.TRAINING, Reason.SUSPENDED, Reason.FINISHED, Reason.REPORT_PENDING)
    )
    return (*notice, Note("Warning" if warning else "Normal", str(new.get("reason")), message))


def _notice(old: Mapping[str, Any], new: Mapping[str, Any]) -> tuple[Note, ...]:
    """Tell of what was asked and not done: an edit that is ignored, replicas or a suspension refused."""
    found = []
    for kind, told in (
        (Condition.ACCEPTED, (Reason.SPEC_CHANGE_IGNORED, Reason.SCALE_REFUSED)),
        (Condition.SUSPENDED, (Reason.CHECKPOINT_NOT_DURABLE,)),
    ):
        now, before = view(new, kind), view(old, kind)
        if now is not None and now.reason in told and (before is None or before.reason != now.reason):
            found.append(Note("Warning", now.reason, now.message))
    return tuple(found)


def _flaps(old: Mapping[str, Any], new: Mapping[str, Any], now: datetime) -> bool:
    if old.get("phase") != Phase.RUNNING or new.get("phase") != Phase.RUNNING:
        return False
    if holds(old, Condition.DEGRADED) and holds(new, Condition.DEGRADED):
        return False
    before = view(old, Condition.DEGRADED)
    start = parse_time(old.get("startTime"))
    if before is None or before.since is None or start is None or before.since <= start:
        return False
    return 0.0 <= (now - before.since).total_seconds() < _QUIET_SECONDS
