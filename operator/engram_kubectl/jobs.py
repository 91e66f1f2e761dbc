"""Jobs read from the API server: one, all of a namespace, or one again and again as it changes."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator
from datetime import datetime
from typing import Any

from engram.errors import ConfigurationError
from engram.spec.names import KIND, PLURAL, Condition, Label
from engram_kubectl.connection import Cluster
from engram_kubectl.errors import explained, no_crd, not_installed, passing
from engram_operator.api import path_of
from engram_operator.errors import ApiError
from engram_operator.model import ConditionView, JobKey, Object, conditions_of

PAGE = 200
SILENT_FOR = 60.0
"""Seconds without an answer after which a cluster that was there is given up."""
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 5.0
MOST_NAMED = 8
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")


def key_of(text: str, namespace: str) -> JobKey:
    """Return which job `[NAMESPACE/]NAME` means, in `namespace` where it names none."""
    parts = text.removeprefix("fij/").split("/")
    if len(parts) > 2 or not all(_NAME.fullmatch(part) for part in parts):
        raise ConfigurationError(f"{text!r} names no job", remedy="write NAME or NAMESPACE/NAME")
    return JobKey(parts[0] if len(parts) == 2 else namespace, parts[-1])


async def read_job(cluster: Cluster, key: JobKey) -> Object:
    """Return the job.

    Raises:
        ConfigurationError: there is none of that name; says which there are.
        ApiError: it cannot be read.
    """
    try:
        return await cluster.api.request("GET", path_of(KIND, key.namespace, key.name))
    except ApiError as error:
        if error.status != 404 or not_installed(error):
            raise
        raise ConfigurationError(
            f"there is no job {key.name} in namespace {key.namespace} of context {cluster.context}",
            remedy=await _remedy(cluster, key.namespace),
        ) from error


async def list_jobs(cluster: Cluster, namespace: str) -> list[Object]:
    """Return all jobs of a namespace, or of all of them for an empty one, by name."""
    found = await list_all(cluster, path_of(KIND, namespace), {})
    return sorted(found, key=lambda job: (job["metadata"]["namespace"], job["metadata"]["name"]))


async def list_all(cluster: Cluster, path: str, query: dict[str, str]) -> list[Object]:
    """Return the items of all pages of a list."""
    found: list[Object] = []
    asked = {**query, "limit": str(PAGE)}
    while True:
        page = await cluster.api.request("GET", path, query=asked)
        found += page.get("items") or ()
        token = (page.get("metadata") or {}).get("continue")
        if not token:
            return found
        asked["continue"] = token


async def pods_of(cluster: Cluster, key: JobKey) -> list[Object]:
    """Return the pods of a job, by name."""
    query = {"labelSelector": f"{Label.JOB}={key.name}"}
    found = await list_all(cluster, path_of("Pod", key.namespace), query)
    return sorted(found, key=lambda pod: str(pod["metadata"]["name"]))


async def follow(cluster: Cluster, key: JobKey) -> AsyncGenerator[Object]:
    """Yield the job now and whenever it changes, for ever; the caller ends it.

    A cluster that goes away for a while is asked again; the job's own end is no end of this.

    Raises:
        ConfigurationError: there is no such job, or it was deleted.
        EngramError: the cluster has been silent for too long.
    """
    loop, pause = asyncio.get_running_loop(), FIRST_PAUSE
    silent_since: float | None = None
    job: Object | None = None
    while True:
        try:
            job = await read_job(cluster, key)
            silent_since, pause = None, FIRST_PAUSE
            yield job
            async for event in _changes(cluster, job):
                if event["type"] == "DELETED":
                    raise ConfigurationError(
                        f"job {key.name} was deleted from namespace {key.namespace}", remedy="apply it again"
                    )
                yield event["object"]
        except ApiError as error:
            silent_since = loop.time() if silent_since is None else silent_since
            if job is None or not passing(error) or loop.time() - silent_since > SILENT_FOR:
                raise explained(error, cluster.host) from error
            await asyncio.sleep(pause)
            pause = min(LONGEST_PAUSE, 2 * pause)


async def _changes(cluster: Cluster, job: Object) -> AsyncGenerator[Object]:
    """Yield the events of the job after this version of it, until the server ends the watch."""
    meta = job["metadata"]
    query = {"fieldSelector": f"metadata.name={meta['name']}", "resourceVersion": meta["resourceVersion"]}
    watch = cluster.api.watch(path_of(KIND, meta["namespace"]), query)
    try:
        async for event in watch:
            if event.get("type") in ("ADDED", "MODIFIED", "DELETED"):
                yield event
    finally:
        await watch.aclose()


async def _remedy(cluster: Cluster, namespace: str) -> str:
    """Return what to write instead of a name that is none."""
    try:
        jobs = await list_jobs(cluster, namespace)
    except ApiError as error:
        if not_installed(error):
            return str(no_crd(cluster.host))
        return "correct the name, or name another namespace with --namespace"
    names = [job["metadata"]["name"] for job in jobs]
    if not names:
        return f"name another namespace with --namespace, or apply the job: kubectl get {PLURAL} -A"
    shown = ", ".join(names[:MOST_NAMED]) + (" ..." if len(names) > MOST_NAMED else "")
    return f"this namespace has {shown}"


def status_of(job: Object) -> dict[str, Any]:
    """Return the job's status; empty for one that no operator has seen."""
    found: dict[str, Any] = job.get("status") or {}
    return found


def condition_of(job: Object, kind: Condition) -> ConditionView | None:
    """Return a condition of the job; None: nobody has said anything about it."""
    return conditions_of(status_of(job)).get(str(kind))


def has_ended(job: Object) -> bool:
    """Return whether the job's run is over, one way or the other."""
    return any(holds(job, kind) for kind in (Condition.COMPLETE, Condition.FAILED))


def holds(job: Object, kind: Condition) -> bool:
    """Return whether a condition of the job is True."""
    found = condition_of(job, kind)
    return found is not None and found.true


def phase_of(job: Object) -> str:
    """Return the phase as the operator wrote it; `Unseen` where it has not."""
    return str(status_of(job).get("phase") or "Unseen")


def age(moment: datetime | None, now: datetime) -> str:
    """Return how long ago something was, as kubectl writes it."""
    return "-" if moment is None else duration((now - moment).total_seconds())


def duration(seconds: float) -> str:
    """Return `45s`, `12m`, `3h20m` or `4d`."""
    whole = max(0, round(seconds))
    if whole < 120:
        return f"{whole}s"
    if whole < 2 * 3600:
        return f"{whole // 60}m"
    if whole < 48 * 3600:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
    return f"{whole // 86400}d"
