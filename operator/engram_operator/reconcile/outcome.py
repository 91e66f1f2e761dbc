"""How a plan's status, Events and times come about, the same for every state of a job."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime

from engram_operator.model import Object, Plan
from engram_operator.status import Content, Statements, build_status, notes_of, write_in


def with_status(plan: Plan, raw: Object, statements: Statements, content: Content, now: datetime) -> Plan:
    """Return `plan` with the status that `statements` and `content` make, if it is worth a write now."""
    old = raw.get("status") or {}
    new = build_status(old, statements, content, now, int(raw["metadata"].get("generation") or 0))
    wait = write_in(old, new, now)
    if wait is None:
        return plan
    if wait > 0:
        return replace(plan, wake_after=soonest((plan.wake_after, wait)))
    return replace(plan, status=new, notes=notes_of(old, new, now))


def soonest(times: Iterable[float | None]) -> float | None:
    """Return the shortest of the waits in seconds, at least a tenth; None: there is nothing to wait for."""
    known = [time for time in times if time is not None]
    return max(0.1, min(known)) if known else None
