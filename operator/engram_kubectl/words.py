"""A job's status in plain words: pure functions from the job to text, what the commands print.

What pods and users have written ends up in a terminal here: nothing of it may move a cursor.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from engram.spec.names import Condition, Phase, Reason
from engram_kubectl.jobs import duration, phase_of, status_of
from engram_operator.model import ConditionView, Object, conditions_of, parse_time

UNSEEN = "no operator has looked at this job: is one running, and does it watch this namespace?"

PLAIN: Mapping[Condition, tuple[str, str]] = {
    Condition.ACCEPTED: ("the job is valid", "the job is not accepted"),
    Condition.WORKERS_READY: ("all workers are there", "workers are missing"),
    Condition.PROGRESSING: ("the run moves on", "the run does not move"),
    Condition.DEGRADED: ("something is not as it should be", "nothing is missing"),
    Condition.SUSPENDED: ("the run rests", "the run does not rest"),
    Condition.REPORT_READY: ("the report is there", "there is no report yet"),
    Condition.COMPLETE: ("the run is done", "the run is not done"),
    Condition.FAILED: ("the run has failed", "the run has not failed"),
    Condition.STALLED: ("it waits for somebody to act", "nobody has to act"),
}
"""Conditions in the order of a job's life, and what each says when it is True and when it is not. `Ready` and
`Reconciling`, which other programs read, say nothing more to a person."""

WORRYING = {Condition.DEGRADED, Condition.FAILED, Condition.STALLED}
"""Conditions that are bad news when they are True; all others when they are not, or none at all."""


def printable(text: object) -> str:
    """Return what somebody else wrote, without characters that a terminal would obey."""
    return "".join(letter if letter.isprintable() or letter == "\n" else " " for letter in str(text))


def one_line(text: object) -> str:
    """Return the same on one line."""
    return " ".join(printable(text).split())


def place(job: Object) -> str:
    """Return `task 2/5  round 13/25  accuracy 93.1%  ...`, as far as it is known."""
    shown = status_of(job).get("display") or {}
    known = ((name, shown.get(name)) for name in ("task", "round", "accuracy", "forgetting", "workers"))
    return "  ".join(f"{name} {one_line(value)}" for name, value in known if value)


def percent(job: Object) -> int | None:
    """Return how much of the run is done, 0 to 100; None: not known."""
    if phase_of(job) == Phase.SUCCEEDED:
        return 100
    found = (status_of(job).get("progress") or {}).get("percent")
    return None if found is None else max(0, min(100, int(found)))


def left(job: Object, now: datetime) -> str:
    """Return `about 3m left`; empty when nobody knows."""
    end = parse_time((status_of(job).get("progress") or {}).get("estimatedCompletionTime"))
    if end is None or phase_of(job) != Phase.RUNNING:
        return ""
    seconds = (end - now).total_seconds()
    return f"about {duration(seconds)} left" if seconds > 0 else "about to end"


def line(job: Object, now: datetime) -> str:
    """Return the state of a job on one line, for logs and for terminals that are none."""
    done = percent(job)
    parts = [phase_of(job), "" if done is None else f"{done}%", place(job), left(job, now)]
    return "  ".join(part for part in parts if part)


def headline(job: Object) -> str:
    """Return why the job is where it is: reason and message of the condition that decides the phase."""
    status = status_of(job)
    if not status.get("phase"):
        return UNSEEN
    reason, message = str(status.get("reason") or ""), one_line(status.get("message") or "")
    return ": ".join(part for part in (reason, message or meaning(reason)) if part)


def meaning(reason: str) -> str:
    """Return the user guide's line on a reason; empty for one that this version does not know."""
    known = {str(member): member.meaning for member in Reason}
    return known.get(reason, "")


def conditions(job: Object) -> list[tuple[str, bool, str]]:
    """Return (condition, whether it is fine, sentence) of each that has something to say to a person."""
    found = conditions_of(status_of(job))
    said = []
    for kind, (true, false) in PLAIN.items():
        view = found.get(str(kind))
        if view is None or (not view.true and kind in (Condition.COMPLETE, *WORRYING, Condition.SUSPENDED)):
            continue
        if not view.true and view.reason == Reason.FINISHED:
            continue  # of a run that is done, which Complete says, nobody asks whether it moves
        said.append((str(kind), _fine(kind, view), _sentence(view, true if view.true else false)))
    return said


def _fine(kind: Condition, view: ConditionView) -> bool:
    if kind in WORRYING:
        return not view.true
    return view.true or view.reason == Reason.REPORT_PENDING


def _sentence(view: ConditionView, plain: str) -> str:
    why = one_line(view.message) or meaning(view.reason)
    return f"{plain} ({view.reason})" + (f": {why}" if why else "")


def not_fine(worker: Mapping[str, Any]) -> bool:
    """Return whether a worker's entry of the status has something to say."""
    return bool(worker.get("reason") or worker.get("message")) or worker.get("state") in (
        "disconnected",
        "failed",
    )
