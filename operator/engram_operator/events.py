"""Events of a job: one for each transition, whoever writes it and however often.

The name is made of the job's uid, the reason and the moment of the transition, so that writing it twice is
one Event and an AlreadyExists. core/v1 is written because every tool shows it, `kubectl describe` first.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime

from engram.spec.names import API_VERSION, KIND, OPERATOR
from engram_operator.model import Note, Object

LONGEST_MESSAGE = 1024


def build_event(job: Object, note: Note, status: Object, now: datetime) -> Object:
    """Return the Event of `note`.

    Args:
        job: the FederatedIncrementalJob.
        note: what happened.
        status: the status that goes with it; the condition with the note's reason dates the transition.
        now: time shown to people.
    """
    meta = job["metadata"]
    moment = next(
        (
            condition.get("lastTransitionTime", "")
            for condition in status.get("conditions") or ()
            if condition.get("reason") == note.reason
        ),
        note.message,
    )
    digest = hashlib.sha256(f"{meta['uid']}/{note.reason}/{moment}".encode()).hexdigest()[:16]
    time = now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{meta['name']}.{digest}", "namespace": meta["namespace"]},
        "involvedObject": {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "namespace": meta["namespace"],
            "name": meta["name"],
            "uid": meta["uid"],
        },
        "type": note.kind,
        "reason": note.reason,
        "message": _short(note.message),
        "source": {"component": OPERATOR},
        "reportingComponent": OPERATOR,
        "firstTimestamp": time,
        "lastTimestamp": time,
        "count": 1,
    }


def _short(message: str) -> str:
    return message if len(message) <= LONGEST_MESSAGE else message[: LONGEST_MESSAGE - 1] + "…"
