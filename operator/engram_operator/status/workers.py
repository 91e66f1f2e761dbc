"""`status.workers` and `status.workerStatuses`: pods and the aggregator's view of them, put together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from engram.spec.names import Reason, WorkerCondition
from engram.spec.status import MOST_WORKER_STATUSES
from engram.spec.training import Aggregation
from engram_operator.model import Object
from engram_operator.status.census import Census, Member
from engram_operator.status.conditions import squeeze
from engram_operator.status.figures import CONNECTED, Figures
from engram_operator.status.finding import ANEW, WORST_FIRST, Finding
from engram_operator.status.lengths import in_bytes
from engram_operator.status.rejections import explain_refused

MOST_MESSAGE = 256
"""Bytes of what is said of one worker."""
CONNECTS_WITHIN = timedelta(seconds=30)
"""A worker that the aggregator does not know after both have run for so long cannot reach it."""


def with_live(
    census: Census, figures: Figures, endpoint: str, now: datetime, aggregation: Aggregation
) -> Census:
    """Return the census with what only the aggregator knows: who is silent, absent, turned down or late."""
    if not figures.live:
        return census
    complete = len(figures.workers) < MOST_WORKER_STATUSES
    serving = census.aggregator.pod.ready_since if census.aggregator.pod else None
    workers = []
    for member in census.workers:
        seen = figures.workers.get(member.name)
        finding = member.finding
        if member.state == "running" and finding is None:
            if seen is None and complete:
                finding = _never_came(member, endpoint, serving, now)
            elif seen is not None:
                finding = _as_seen(member, seen, figures, aggregation)
        elif finding is not None and seen is not None and _is_well(finding, seen):
            finding = None
        workers.append(replace(member, finding=finding))
    return replace(census, workers=tuple(workers))


def _is_well(finding: Finding, seen: Object) -> bool:
    """Whether the aggregator knows better: it hears from the worker, or the worker had finished.

    A node agent that lost track of a container reports a failure that was none (137, ContainerStatusUnknown).
    """
    if finding.reason is not Reason.NODE_OFFLINE:
        return False
    return seen.get("state") == WorkerCondition.FINISHED


def _never_came(member: Member, endpoint: str, serving: datetime | None, now: datetime) -> Finding | None:
    """Return what to say of a worker unknown to an aggregator that has served since `serving`."""
    started = member.pod.main.started if member.pod and member.pod.main else None
    if started is None or now - max(started, serving or started) < CONNECTS_WITHIN:
        return None
    node = member.pod.node if member.pod else ""
    service = ".svc." in endpoint
    name = ", a name that only nodes with the cluster's DNS and network know" if service else ""
    mend = f"{ANEW} with spec.aggregator.expose" if service else "mend the way from the node to that address"
    return Finding(
        Reason.AGGREGATOR_UNREACHABLE,
        f"has run on node {node} since {started:%H:%M:%S} UTC and has not reached the aggregator at "
        f"{endpoint}{name}: {mend}; kubectl logs {member.pod.name if member.pod else ''} says what failed",
        member.name,
        started,
    )


def _as_seen(member: Member, seen: Object, figures: Figures, aggregation: Aggregation) -> Finding | None:
    state = seen.get("state")
    if state == WorkerCondition.DISCONNECTED:
        last = f"; last seen {seen['lastSeenTime']}" if seen.get("lastSeenTime") else ""
        return Finding(
            Reason.WORKER_DISCONNECTED,
            f"has sent no sign of life for three heartbeats{last}; it may still be training and is not "
            "replaced: check the network of its node",
            member.name,
        )
    if state == WorkerCondition.FAILED:
        return Finding(Reason.WORKER_FAILED, "the aggregator counts it as failed", member.name)
    if member.name in figures.refused:
        return explain_refused(member.name, figures.refused[member.name])
    current, own = figures.progress.get("round") or 0, seen.get("round") or 0
    # Where every round asks every worker and waits for it, one that lags was left out.
    waits = aggregation.client_fraction == 1.0 and not aggregation.buffer.size
    if waits and state in CONNECTED and own and current - own >= 2:
        factor = aggregation.straggler_factor
        field = "roundDeadlineSeconds" if factor is None else "stragglerFactor"
        return Finding(
            Reason.ROUND_DEGRADED,
            f"took part in round {own} last, rounds go on without it ({current} now): raise "
            f"aggregation.{field} or give it less work",
            member.name,
        )
    return None


def counts(census: Census, figures: Figures, desired: int) -> Object:
    """Return `status.workers`."""
    found: Object = {"desired": desired, "running": census.count("running")}
    for key in ("connected", "disconnected"):
        if key in figures.counts:
            found[key] = figures.counts[key]
    found["failed"] = census.count("lost")
    return found


def worker_statuses(census: Census, figures: Figures) -> list[Object]:
    """Return `status.workerStatuses`: at most 20, those that are not fine first, worst reason first."""
    rank = {reason: place for place, reason in enumerate(WORST_FIRST)}
    fine = len(rank)
    known = [found for found in census.workers if found.pod or found.finding or found.name in figures.workers]
    ordered: Sequence[Member] = sorted(
        known,
        key=lambda member: rank.get(member.finding.reason, fine) if member.finding else fine + 1,
    )
    return [_worker_status(member, figures) for member in ordered[:MOST_WORKER_STATUSES]]


def _worker_status(member: Member, figures: Figures) -> Object:
    seen = figures.workers.get(member.name, {})
    status: Object = {"name": member.name, "group": member.group}
    state = _state(member, seen)
    if state:
        status["state"] = state
    if member.finding is not None:
        status["reason"] = str(member.finding.reason)
        status["message"] = in_bytes(squeeze, member.finding.message, MOST_MESSAGE)
    if member.pod is not None and member.pod.node:
        status["node"] = member.pod.node
    for key in ("device", "round"):
        if seen.get(key):
            status[key] = seen[key]
    if seen.get("lastSeenTime") and state not in CONNECTED:
        # Of a worker that is there it would be news every second, and none.
        status["lastSeenTime"] = seen["lastSeenTime"]
    if member.name in figures.memory:
        status["memoryBytes"] = figures.memory[member.name]
    status["restarts"] = member.restarts
    return status


def _state(member: Member, seen: Object) -> str:
    """Return the aggregator's word, or what the pod says where there is none."""
    if member.state == "lost":
        return WorkerCondition.FAILED
    if seen.get("state"):
        return str(seen["state"])
    return WorkerCondition.FINISHED if member.state == "done" else ""
