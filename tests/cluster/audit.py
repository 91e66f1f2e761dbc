"""Who asked the API server for what: its audit log, read back. Counts of API writes are claims of ours."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

WRITING = frozenset({"create", "update", "patch", "delete", "deletecollection"})
"""Verbs that change something."""

_BUSY = ["system:apiserver", "system:kube-controller-manager", "system:kube-scheduler"]
POLICY: dict[str, Any] = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived", "ResponseStarted"],
    "rules": [
        # What Kubernetes itself reads, and heartbeats, would be nearly all of the log.
        {"level": "None", "users": _BUSY, "verbs": ["get", "list", "watch"]},
        {"level": "None", "userGroups": ["system:nodes"]},
        {"level": "None", "resources": [{"group": "coordination.k8s.io", "resources": ["leases"]}]},
        {"level": "None", "nonResourceURLs": ["/readyz*", "/livez*", "/healthz*", "/version*"]},
        {"level": "Metadata"},
    ],
}
"""The audit policy of every cluster of the tests: who, what and when; no bodies."""


@dataclass(frozen=True)
class Request:
    """One request to the API server."""

    time: datetime
    user: str
    agent: str
    verb: str
    resource: str
    """Plural, with the subresource after a slash: `pods/status`; empty for paths that are no resource."""
    namespace: str
    name: str
    code: int
    path: str

    @classmethod
    def from_event(cls, event: dict[str, Any]) -> Request:
        """Read an event of the log."""
        target = event.get("objectRef") or {}
        kind = "/".join(filter(None, (target.get("resource"), target.get("subresource"))))
        return cls(
            datetime.fromisoformat(event["stageTimestamp"].replace("Z", "+00:00")).astimezone(UTC),
            event.get("user", {}).get("username", ""),
            event.get("userAgent", ""),
            event["verb"],
            kind,
            target.get("namespace", ""),
            target.get("name", ""),
            (event.get("responseStatus") or {}).get("code", 0),
            event.get("requestURI", ""),
        )


def requests(
    log: Path, *, user: str = "", agent: str = "", namespace: str = "", since: datetime | None = None
) -> Iterator[Request]:
    """Yield the requests in `log`: by `user` (name), by clients whose User-Agent starts with `agent`, in
    `namespace`, answered at `since` or later; empty means any.
    """
    if not log.exists():
        return
    with log.open(encoding="utf-8") as lines:
        for line in lines:
            if not line.endswith("\n"):
                break  # still being written
            request = Request.from_event(json.loads(line))
            if (
                (not user or request.user == user)
                and request.agent.startswith(agent)
                and (not namespace or request.namespace == namespace)
                and (since is None or request.time >= since)
            ):
                yield request


def count_writes(
    log: Path, *, user: str = "", agent: str = "", namespace: str = "", since: datetime | None = None
) -> Counter[tuple[str, str]]:
    """Return how often each (verb, resource) was written, refused attempts included; filters as `requests`.

    `.total()` is the number of writes.
    """
    found = requests(log, user=user, agent=agent, namespace=namespace, since=since)
    return Counter((request.verb, request.resource) for request in found if request.verb in WRITING)
