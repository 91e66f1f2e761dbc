"""Why the API server takes no pod or object of a job: quota, Pod Security, a namespace that goes, webhooks.

A pod that was refused leaves nothing but an Event of its Job, so the sentence is all that anyone sees.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from engram.spec.names import Reason
from engram_operator.status.conditions import shorten
from engram_operator.status.finding import ANEW, Finding


@dataclass(frozen=True)
class _Row:
    words: str
    reason: Reason
    mend: str


_TABLE: tuple[_Row, ...] = (
    _Row(
        "exceeded quota",
        Reason.QUOTA_EXCEEDED,
        f"have the ResourceQuota raised and it goes on, or {ANEW} with less (resources, replicas)",
    ),
    _Row(
        "failed quota",
        Reason.QUOTA_EXCEEDED,
        f"{ANEW} with the requests and limits that the ResourceQuota asks for in resources",
    ),
    _Row("violates PodSecurity", Reason.POD_SECURITY_VIOLATION, ""),
    _Row(
        "is being terminated",
        Reason.NAMESPACE_TERMINATING,
        "apply the job in another namespace",
    ),
    _Row(
        "service account",
        Reason.POD_REFUSED,
        f"make the service account, or {ANEW} without serviceAccountName in podTemplate",
    ),
    _Row(
        "port is already allocated",
        Reason.PORT_TAKEN,
        "write another spec.aggregator.expose.port, or 0 for any that is free",
    ),
    _Row(
        "not in the valid range",
        Reason.INVALID_SPEC,
        "write spec.aggregator.expose.port within that range, or 0 for any that is free",
    ),
    _Row("admission webhook", Reason.POD_REFUSED, f"{ANEW} with what the webhook asks for in podTemplate"),
    _Row("minimum memory usage", Reason.QUOTA_EXCEEDED, f"{ANEW} with resources that the LimitRange allows"),
    _Row("maximum", Reason.QUOTA_EXCEEDED, f"{ANEW} with resources that the LimitRange allows"),
    _Row(
        '" in API group "',
        Reason.POD_REFUSED,
        "have an administrator grant the operator that right (deploy/ has its roles), and it goes on",
    ),
    _Row("is invalid", Reason.INVALID_SPEC, "correct it where the job says so and apply it again"),
)

_PRIVILEGED = "have the namespace enforce privileged"
_WAYS_OUT: tuple[tuple[str, str], ...] = (
    (
        "hostPath",
        f"{ANEW} with a PersistentVolumeClaim whose `local` PersistentVolume lies on the node (one worker "
        f"group a node) instead of hostPath, or {_PRIVILEGED}",
    ),
    (
        "hostPort",
        f"{ANEW} with spec.aggregator.expose.type NodePort instead of HostPort, or {_PRIVILEGED}",
    ),
    ("hostNetwork", f"{ANEW} without hostNetwork in podTemplate, or {_PRIVILEGED}"),
    ("host namespaces", f"{ANEW} without hostNetwork in podTemplate, or {_PRIVILEGED}"),
)

_VIOLATION = re.compile(r'violates PodSecurity "(?P<level>[^"]*)": (?P<fields>.*)', re.DOTALL)
_FORBIDDEN = re.compile(r"^.*? is forbidden: ", re.DOTALL)


def explain_refusal(message: str, subject: str, *, started: bool = False) -> Finding:
    """Return why an object or its pods were refused, from the API server's words.

    `started`: whether the job has started, so that its spec cannot be edited any more.
    """
    for row in _TABLE:
        if row.words in message:
            if row.reason is Reason.POD_SECURITY_VIOLATION:
                return _pod_security(message, subject)
            invalid = started and row.reason is Reason.INVALID_SPEC
            mend = f"{ANEW} with that corrected (podTemplate, resources, volumes)" if invalid else row.mend
            return Finding(row.reason, f"{_core(message)}: {mend}", subject)
    return Finding(Reason.POD_REFUSED, _core(message), subject)


def _pod_security(message: str, subject: str) -> Finding:
    """Name the level, the fields and the way out."""
    found = _VIOLATION.search(message)
    level = found["level"] if found else "its level"
    fields = shorten(found["fields"] if found else message, 300).rstrip(".")
    ways = [way for word, way in _WAYS_OUT if word in message or word.lower() in message]
    mend = ways[0] if ways else f"{ANEW} with that corrected in podTemplate, or {_PRIVILEGED}"
    return Finding(
        Reason.POD_SECURITY_VIOLATION,
        f"the namespace enforces Pod Security {level}, which forbids {fields}: {mend}",
        subject,
    )


def _core(message: str) -> str:
    """Return the message without `Error creating: pods "x-abcde" is forbidden: `."""
    text = message.removeprefix("Error creating: ")
    core = _FORBIDDEN.sub("", text, count=1)
    return shorten(core or text, 400).rstrip(".")
