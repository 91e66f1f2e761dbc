"""A job that is deleted: its children go by their ownerReferences, and here is said what they wait for.

Kubernetes removes a pod when its node says that the container has ended. A node out of touch says nothing,
and an edge node may do so for hours: who deletes a job then sees pods that stay, and no reason.
"""

from __future__ import annotations

from datetime import datetime

from engram.spec.names import Condition, Reason
from engram_operator.model import Note, Object, Observed, Plan
from engram_operator.status import Statement, view
from engram_operator.status.conditions import deciding, merge
from engram_operator.status.explain import offline_since

_MOST_NODES = 3
"""Nodes that are named; what to do is the same for all."""


def plan_leaving(raw: Object, observed: Observed, now: datetime) -> Plan:
    """Return what to say of a job that is being deleted: nothing, unless a node keeps pods from going."""
    words = _waits_for(observed)
    if not words:
        return Plan()
    status = raw.get("status") or {}
    before = view(status, Condition.DEGRADED)
    said = {Condition.DEGRADED: Statement(True, Reason.DELETION_WAITS, words)}
    conditions = merge(status.get("conditions") or (), said, now, raw["metadata"].get("generation", 0))
    changed: Object = {**status, "conditions": conditions}
    found = deciding(changed)
    told = before is not None and before.reason == Reason.DELETION_WAITS
    return Plan(
        status={**changed, "reason": found.reason, "message": found.message},
        notes=() if told else (Note("Warning", Reason.DELETION_WAITS, words),),
    )


def _waits_for(observed: Observed) -> str:
    """Return which nodes keep how many pods, and what helps; empty: none does."""
    waiting: dict[str, list[str]] = {}
    since: dict[str, str] = {}
    for pod in observed.pods:
        offline = offline_since(pod, observed.nodes)
        if offline is None or pod.phase in ("Succeeded", "Failed"):
            continue
        moment, node = offline
        waiting.setdefault(node, []).append(pod.name)
        since[node] = f" since {moment:%H:%M:%S} UTC" if moment else ""
    if not waiting:
        return ""
    nodes = sorted(waiting)[:_MOST_NODES]
    parts = [f"node {node}, out of touch{since[node]}, still has pod {waiting[node][0]}" for node in nodes]
    more = sum(map(len, waiting.values())) - len(nodes)
    beside = f" and {more} more" if more else ""
    return (
        f"the job is deleted, and {'; '.join(parts)}{beside}: what runs there goes on until the "
        f"node is back, then it goes; if it never comes back, kubectl delete node {nodes[0]}"
    )
