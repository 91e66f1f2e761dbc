"""What is worth reading about one job, worked out from what is known already. Pure.

Most jobs are fine most of the time, so the API server is asked for nothing that a healthy job does not need:
Events only of a batch Job that lacks pods and of a pod that does not start, nodes only where an address or a
lost node is in question.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Literal, NamedTuple

from engram.spec.names import API_VERSION, KIND, OPERATOR
from engram_operator.manifests import names, started_job
from engram_operator.model import JobView, NodeView, Object, PodView
from engram_operator.settings import Settings
from engram_operator.status import report_awaited

SHORT_SECONDS = 5.0
"""A batch Job with fewer pods than wanted for so long has its Events read."""
STUCK_SECONDS = 20.0
"""A pod that has a node and does not start for so long has its Events read: by then kubelet has tried a mount
six times, and what it may wait for at a start (another object, its own cache) is there."""
STARTS = ("Pulling", "Pulled", "Created", "Started")
"""Reasons of kubelet's Events once a pod's volumes are mounted and its sandbox stands."""
MOST_STUCK = 3
"""Pods of a job whose Events are read at a time; what ails one mostly ails all."""
MOST_LOST = 5
"""Nodes of a job's pods that are read at a time."""

Ownership = Literal["ours", "leftover", "foreign"]


class Named(NamedTuple):
    """An object that the job has, or would have."""

    kind: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind}/{self.name}"


def managed(job: Object) -> bool:
    """Return whether the job is this operator's affair."""
    manager: str = (job.get("spec") or {}).get("managedBy", OPERATOR)
    return manager == OPERATOR


def settled(job: Object) -> bool:
    """Return whether nothing is left to be made of the job: it has ended, and its report is there or not to
    be had.

    One whose spec is invalid has not begun.
    """
    status = job.get("status") or {}
    return bool(status.get("completionTime")) and not report_awaited(status)


def ended(job: Object) -> bool:
    """Return whether the run of a job that is not settled has ended: its report is being made."""
    return bool((job.get("status") or {}).get("completionTime"))


def objects_of(job: Object, settings: Settings) -> tuple[Named, ...]:
    """Return the children of `job` that no watch shows."""
    name = job["metadata"]["name"]
    aggregator = _aggregator(job)
    found = [
        Named("Service", names.aggregation_name(name)),
        Named("ConfigMap", names.spec_name(name)),
        Named("ConfigMap", names.report_name(name)),
        Named("Secret", names.credentials_name(name)),
        Named("Secret", names.worker_tokens_name(name)),
    ]
    if (aggregator.get("expose") or {}).get("type") == "NodePort":
        found.append(Named("Service", names.node_port_name(name)))
    if (aggregator.get("checkpoint") or {}).get("size") or settings.checkpoint_size:
        found.append(Named("PersistentVolumeClaim", names.checkpoint_name(name)))
    if settings.network_policy:
        found.append(Named("NetworkPolicy", name))
    return tuple(found)


def claim_of(job: Object, found: Mapping[Named, Object]) -> Named | None:
    """Return the claim that a job was started with, whatever settings say now; None: it has none."""
    name = job["metadata"]["name"]
    started = started_job(found.get(Named("ConfigMap", names.spec_name(name))))
    if started is None or not started.spec.aggregator.checkpoint.size:
        return None
    return Named("PersistentVolumeClaim", names.checkpoint_name(name))


def job_names(job: Object) -> tuple[str, ...]:
    """Return the names of the batch Jobs of `job`."""
    name = job["metadata"]["name"]
    groups = (job.get("spec") or {}).get("workers") or ()
    return (
        names.aggregation_name(name),
        names.report_name(name),
        *(names.group_name(name, group["name"]) for group in groups if group.get("name")),
    )


def ownership(child: Mapping[str, Any], job: Object) -> Ownership:
    """Return whose `child` is; a leftover belonged to a deleted job of the same name and is being removed."""
    name, uid = job["metadata"]["name"], job["metadata"].get("uid")
    for owner in child["metadata"].get("ownerReferences") or ():
        if owner.get("uid") == uid and owner.get("controller"):
            return "ours"
        if (owner.get("apiVersion"), owner.get("kind"), owner.get("name")) == (API_VERSION, KIND, name):
            return "leftover"
    return "foreign"


def needs_addresses(job: Object) -> bool:
    """Return whether the workers are given the address of a node."""
    expose = _aggregator(job).get("expose") or {}
    return expose.get("type") in ("NodePort", "HostPort") and not expose.get("address")


def short_jobs(jobs: Iterable[JobView], pods: Iterable[PodView]) -> tuple[JobView, ...]:
    """Return the batch Jobs that have fewer pods than they want."""
    count: dict[str, int] = {}
    for pod in pods:
        if pod.phase not in ("Succeeded", "Failed"):
            count[pod.owner] = count.get(pod.owner, 0) + 1
    return tuple(
        job
        for job in jobs
        if not (job.suspend or job.deleting or job.succeeding or job.failing)
        and count.get(job.name, 0) < min(job.parallelism, job.completions - job.succeeded - _failed(job))
    )


def stuck_pods(pods: Iterable[PodView], now: datetime) -> tuple[tuple[PodView, float], ...]:
    """Return pods that have a node and do not start, each with the seconds for which it has had it."""
    return tuple(
        (pod, max(0.0, (now - pod.conditions["PodScheduled"].since).total_seconds()))
        for pod in pods
        if pod.phase == "Pending"
        and pod.node
        and pod.deleting is None
        and (pod.main is None or (pod.main.state == "waiting" and pod.main.reason == "ContainerCreating"))
        and "PodScheduled" in pod.conditions
        and pod.conditions["PodScheduled"].since is not None
    )


def doubtful_nodes(pods: Iterable[PodView]) -> tuple[str, ...]:
    """Return the nodes of pods that were running and are not ready or do not go: the nodes may be lost."""
    return tuple(
        sorted(
            {
                pod.node
                for pod in pods
                if pod.node
                and pod.phase in ("Running", "Unknown")
                and (pod.deleting is not None or (pod.main is not None and not pod.ready))
            }
        )[:MOST_LOST]
    )


def newest_message(events: Iterable[Mapping[str, Any]]) -> str:
    """Return the message of the newest of `events`; empty: there is none."""
    latest = max(events, key=_event_time, default=None)
    return str((latest or {}).get("message") or "")


def newest_warning(events: Iterable[Mapping[str, Any]]) -> str:
    """Return the message of a pod's newest Warning; empty: there is none, or kubelet has got over it."""
    told = tuple(events)
    warning = max((event for event in told if event.get("type") == "Warning"), key=_event_time, default=None)
    started = max((event for event in told if event.get("reason") in STARTS), key=_event_time, default=None)
    # Times are whole seconds; in the same second the start came last, for it needs what failed.
    if warning is None or (started is not None and _event_time(started) >= _event_time(warning)):
        return ""
    return str(warning.get("message") or "")


def without_secrets(found: Mapping[Named, Object]) -> dict[str, Object]:
    """Return what was read by `Kind/name`, Secrets left out and managedFields dropped."""
    return {str(key): _slim(value) for key, value in found.items() if key.kind != "Secret"}


def views(nodes: Iterable[Object]) -> tuple[NodeView, ...]:
    """Return views of nodes."""
    return tuple(NodeView.from_object(node) for node in nodes)


def _slim(item: Object) -> Object:
    metadata = {key: value for key, value in item["metadata"].items() if key != "managedFields"}
    return {**item, "metadata": metadata}


def _aggregator(job: Object) -> Mapping[str, Any]:
    found: Mapping[str, Any] = (job.get("spec") or {}).get("aggregator") or {}
    return found


def _failed(job: JobView) -> int:
    """Return how many indexes have failed for good, from text such as `1,3-5`."""
    total = 0
    for part in filter(None, job.failed_indexes.split(",")):
        first, _, last = part.partition("-")
        total += int(last or first) - int(first) + 1
    return total


def _event_time(event: Mapping[str, Any]) -> str:
    series = event.get("series") or {}
    return str(
        series.get("lastObservedTime")
        or event.get("lastTimestamp")
        or event.get("eventTime")
        or event["metadata"].get("creationTimestamp")
        or ""
    )
