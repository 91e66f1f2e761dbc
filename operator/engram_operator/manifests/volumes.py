"""Volumes of the pods: the spec, credentials, data, checkpoint, worker state and /tmp.

A volume of the job file is any source of Kubernetes'; ours differ in where and how they are mounted only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engram.spec.job import FederatedIncrementalJob
from engram.spec.names import TOKEN_FILE, Environment, MountPath, Role, SpecKey
from engram.spec.topology import WorkerGroup
from engram_operator.manifests.labels import metadata
from engram_operator.manifests.names import (
    checkpoint_name,
    credentials_name,
    report_name,
    spec_name,
    worker_tokens_name,
)
from engram_operator.model import Object

TEMPORARY = "/tmp"
"""The only place of a pod that can be written without a volume of the job's."""
SECRET_MODE = 0o440
"""Readable by the pod's fsGroup, nobody else."""
REPORT_FILE = "report.json"
"""Of a report's files the one with all its numbers."""
TRANSIENT_SOURCES = ("emptyDir", "ephemeral")
"""Volumes that die with their pod."""

OWN_WORKER = f"$({Environment.WORKER_NAME})"
"""Expanded by the kubelet: each worker sees its own entry of a volume."""


@dataclass(frozen=True)
class Mounted:
    """A volume of a pod with its mount in the main container."""

    volume: Object
    mount: Object


def aggregator_volumes(job: FederatedIncrementalJob) -> tuple[Mounted, ...]:
    """Return what the aggregator's pod mounts."""
    credentials = {"secret": {"secretName": credentials_name(job.name), "defaultMode": SECRET_MODE}}
    return (
        _mounted("spec", _config(job), MountPath.SPEC, read_only=True),
        _mounted("credentials", credentials, MountPath.CREDENTIALS, read_only=True),
        *_data(job.spec.dataset.volume),
        _mounted("checkpoint", checkpoint_source(job), MountPath.CHECKPOINT),
        _mounted("tmp", {"emptyDir": {}}, TEMPORARY),
    )


def worker_volumes(job: FederatedIncrementalJob, group: WorkerGroup) -> tuple[Mounted, ...]:
    """Return what a pod of `group` mounts; of the tokens each container sees its own only."""
    tokens = {"secret": {"secretName": worker_tokens_name(job.name), "defaultMode": SECRET_MODE}}
    token = _mounted("credentials", tokens, f"{MountPath.CREDENTIALS}/{TOKEN_FILE}", read_only=True)
    token.mount["subPathExpr"] = OWN_WORKER
    state = []
    if group.state.volume:
        state = [_mounted("state", group.state.volume, MountPath.STATE)]
        state[0].mount["subPathExpr"] = OWN_WORKER
    config = _config(job, cloud=group.placement == "cloud")
    return (
        _mounted("spec", config, MountPath.SPEC, read_only=True),
        token,
        *_data(group_data(job, group)),
        *state,
        _mounted("tmp", {"emptyDir": {}}, TEMPORARY),
    )


def reporter_volumes(
    job: FederatedIncrementalJob, *, checkpoint: bool, peers: Sequence[str] = ()
) -> tuple[Mounted, ...]:
    """Return what the report's pod mounts.

    Args:
        job: the job.
        checkpoint: whether the record lies there.
        peers: names of the jobs whose reports it compares with; those that have none are just not there.
    """
    kept = []
    if checkpoint:
        kept = [_mounted("checkpoint", checkpoint_source(job), MountPath.CHECKPOINT, read_only=True)]
    if job.spec.report.volume:
        kept.append(_mounted("report", job.spec.report.volume, MountPath.REPORT))
    if peers:
        sources = [_report_of(name) for name in peers]
        kept.append(_mounted("peers", {"projected": {"sources": sources}}, MountPath.PEERS, read_only=True))
    if job.spec.report.prometheus.url and job.spec.report.prometheus.secret_name:
        secret = {
            "secretName": job.spec.report.prometheus.secret_name,
            "defaultMode": SECRET_MODE,
            "optional": True,  # without it Prometheus may say no, which is a note and no missing report
        }
        kept.append(_mounted("prometheus", {"secret": secret}, MountPath.PROMETHEUS, read_only=True))
    return (
        _mounted("spec", _config(job), MountPath.SPEC, read_only=True),
        *kept,
        _mounted("tmp", {"emptyDir": {}}, TEMPORARY),
    )


def _report_of(name: str) -> Object:
    """Return the report.json of another job's report, in a directory of its name."""
    item = {"key": REPORT_FILE, "path": f"{name}/{REPORT_FILE}"}
    return {"configMap": {"name": report_name(name), "items": [item], "optional": True}}


def group_data(job: FederatedIncrementalJob, group: WorkerGroup) -> Mapping[str, Any]:
    """Return the source of the group's data volume: its own, or the data set's; empty: bundled data."""
    own = group.dataset.volume
    return job.spec.dataset.volume if own is None else own


def with_checkpoint(
    job: FederatedIncrementalJob, size: str, storage_class: str = ""
) -> FederatedIncrementalJob:
    """Return the job with the claim that the administrator gives to jobs that name no checkpoint.

    That is decided once, at the start: another setting later makes nothing of a run durable that is not.
    """
    checkpoint = job.spec.aggregator.checkpoint
    if checkpoint.volume or checkpoint.size or not size:
        return job
    given = checkpoint.model_copy(update={"size": size, "storage_class_name": storage_class})
    aggregator = job.spec.aggregator.model_copy(update={"checkpoint": given})
    return job.model_copy(update={"spec": job.spec.model_copy(update={"aggregator": aggregator})})


def checkpoint_is_durable(job: FederatedIncrementalJob) -> bool:
    """Return whether the checkpoint outlives the aggregator's pod, so that a suspended run loses nothing."""
    source = checkpoint_source(job)
    return not any(name in source for name in TRANSIENT_SOURCES)


def forgetful_groups(job: FederatedIncrementalJob) -> tuple[str, ...]:
    """Return the groups whose workers lose with their pods what compression owes."""
    if not job.spec.aggregation.owes:
        return ()
    kept = [group.state.volume or {"emptyDir": {}} for group in job.spec.workers]
    return tuple(
        group.name
        for group, source in zip(job.spec.workers, kept, strict=True)
        if any(name in source for name in TRANSIENT_SOURCES)
    )


def checkpoint_source(job: FederatedIncrementalJob) -> Mapping[str, Any]:
    """Return the source of the checkpoint's volume: the job's, a claim of ours, or an emptyDir."""
    if job.spec.aggregator.checkpoint.volume:
        return job.spec.aggregator.checkpoint.volume
    if job.spec.aggregator.checkpoint.size:
        return {"persistentVolumeClaim": {"claimName": checkpoint_name(job.name)}}
    return {"emptyDir": {}}


def checkpoint_claim(job: FederatedIncrementalJob) -> Object | None:
    """Return the PersistentVolumeClaim for the checkpoint; None when the job needs none of its own."""
    wanted = job.spec.aggregator.checkpoint
    if wanted.volume or not wanted.size:
        return None
    spec: Object = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": wanted.size}}}
    if wanted.storage_class_name:
        spec["storageClassName"] = wanted.storage_class_name
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": metadata(job, checkpoint_name(job.name), Role.AGGREGATOR),
        "spec": spec,
    }


def _config(job: FederatedIncrementalJob, *, cloud: bool = False) -> Object:
    """Return the source of the spec's volume; `cloud`: with the endpoints for pods that have cluster DNS."""
    chosen = SpecKey.CLOUD_ENDPOINTS if cloud else SpecKey.ENDPOINTS
    files = (SpecKey.JOB, SpecKey.DIGEST, SpecKey.ENDPOINTS, SpecKey.REPLICAS, SpecKey.CA)
    items = [{"key": str(chosen if path is SpecKey.ENDPOINTS else path), "path": str(path)} for path in files]
    return {"configMap": {"name": spec_name(job.name), "items": items}}


def _data(source: Mapping[str, Any]) -> tuple[Mounted, ...]:
    return (_mounted("data", source, MountPath.DATA, read_only=True),) if source else ()


def _mounted(name: str, source: Mapping[str, Any], path: str, *, read_only: bool = False) -> Mounted:
    mount: Object = {"name": name, "mountPath": str(path)}
    if read_only:
        mount["readOnly"] = True
    return Mounted({"name": name, **source}, mount)
