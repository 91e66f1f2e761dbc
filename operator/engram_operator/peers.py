"""The jobs that `spec.report.compareWith` means: those it names, and those of the namespace that it selects.

A report is made once, so what counts is what there is at that moment. Pure: over the jobs that the watch
knows.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from engram.spec.names import JOB_NAME_LENGTH, JOB_NAME_PATTERN, Condition, Reason
from engram_operator.model import Object, conditions_of

MOST_PEERS = 64
"""Jobs on one leaderboard, as many as can be named."""


def compares(job: Object) -> bool:
    """Return whether the job is to be compared with others at all."""
    wanted = _wanted(job)
    return bool(wanted.get("names") or wanted.get("selector"))


def peers_of(job: Object, jobs: Callable[[], Iterable[Object]]) -> tuple[str, ...]:
    """Return the names of the other jobs, those that are named first.

    Args:
        job: the FederatedIncrementalJob.
        jobs: gives all that are known, of every namespace; asked only where there is a selector.

    A named job is among them whether it exists or not: the report says which is missing. Of the selected ones
    those that have a report count, the newest first.
    """
    wanted, own = _wanted(job), job["metadata"]
    names = [name for name in map(str, wanted.get("names") or ()) if _is_name(name)]
    selector = wanted.get("selector")
    if isinstance(selector, Mapping) and selector:
        found = [
            other
            for other in jobs()
            if other["metadata"]["namespace"] == own["namespace"]
            and selects(selector, other["metadata"].get("labels") or {})
            and _reported(other)
        ]
        found.sort(key=lambda other: (str(other["status"].get("completionTime")), other["metadata"]["name"]))
        names += [other["metadata"]["name"] for other in reversed(found)]
    return tuple(name for name in dict.fromkeys(names) if name != own["name"])[:MOST_PEERS]


def _is_name(text: str) -> bool:
    """Return whether a job can be called so: it becomes part of a path in the report's pod."""
    return len(text) <= JOB_NAME_LENGTH and re.match(JOB_NAME_PATTERN, text) is not None and "\n" not in text


def selects(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Return whether a label selector selects what has `labels`."""
    if any(labels.get(key) != value for key, value in (selector.get("matchLabels") or {}).items()):
        return False
    return all(_meets(item, labels) for item in selector.get("matchExpressions") or ())


def _meets(expression: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    found, values = labels.get(expression.get("key", "")), expression.get("values") or ()
    match expression.get("operator"):
        case "In":
            return found in values
        case "NotIn":
            return found not in values
        case "Exists":
            return found is not None
        case "DoesNotExist":
            return found is None
    return False


def _reported(job: Object) -> bool:
    found = conditions_of(job.get("status") or {}).get(Condition.REPORT_READY)
    return found is not None and found.true and found.reason == Reason.REPORT_STORED


def _wanted(job: Object) -> Mapping[str, Any]:
    """Return `spec.report.compareWith` as it was written; it was checked when the job was accepted."""
    report = (job.get("spec") or {}).get("report")
    found = report.get("compareWith") if isinstance(report, Mapping) else None
    return found if isinstance(found, Mapping) else {}
