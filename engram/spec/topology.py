"""`spec.aggregator`, `spec.workers`, `spec.runPolicy`, `spec.report`: where it runs, for how long, and what
comes out.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from engram.spec.base import MUTABLE, Opaque, Spec
from engram.spec.data import GroupDataset, Volume
from engram.spec.names import GROUP_NAME_LENGTH, GROUP_NAME_PATTERN, JOB_NAME_LENGTH, MOST_REPLICAS

Placement = Literal["cloud", "edge", "any"]
Image = Annotated[str, Field(max_length=1024)]
Port = Annotated[int, Field(ge=0, le=65535)]


class Expose(Spec):
    """How workers outside the cluster network reach the aggregator."""

    type: Literal["ClusterIP", "NodePort", "HostPort"] = Field(
        "ClusterIP", description="ClusterIP: inside the cluster only; NodePort or HostPort: a port of a node."
    )
    address: str = Field(
        "",
        max_length=253,
        description="What edge nodes dial: a public IP, DNS name or EdgeMesh name. Empty: worked out.",
    )
    port: Port = Field(0, description="Node or host port; 0: chosen by Kubernetes, or 7363 for HostPort.")


class Checkpoint(Spec):
    """Where the aggregator keeps its checkpoint."""

    volume: Volume = Field(
        default_factory=dict, description="Any Kubernetes volume source that outlives the pod."
    )
    size: str = Field(
        "", max_length=32, description="Size of a PersistentVolumeClaim made for the job, such as 1Gi."
    )
    storage_class_name: str = Field(
        "", max_length=253, description="Storage class of that claim; empty: the default."
    )


class Aggregator(Spec):
    """The aggregation pod."""

    image: Image = Field("", description="Container image; empty: the operator's default.")
    placement: Placement = Field(
        "cloud", description="cloud: not on edge nodes; edge: only there; any: anywhere."
    )
    node_name: str = Field(
        "", max_length=253, description="Run on this node; required by expose.type HostPort."
    )
    expose: Expose = Field(default_factory=Expose, description="How workers reach the aggregator.")
    checkpoint: Checkpoint = Field(default_factory=Checkpoint, description="Where the checkpoint is kept.")
    resources: Opaque = Field(
        default_factory=dict, description="Resource requests and limits of the main container."
    )
    pod_template: Opaque = Field(default_factory=dict, description="Merged into the pod template last.")


class Gpus(Spec):
    """GPUs of each worker of a group."""

    count: int = Field(0, ge=0, le=64, description="GPUs of each worker.")
    resource_name: str = Field(
        "nvidia.com/gpu", min_length=1, max_length=253, description="Extended resource to ask for."
    )


class WorkerState(Spec):
    """Volume for large state of each worker."""

    volume: Volume = Field(
        default_factory=dict,
        description="Keeps what compression int8 and topk owe; one folder for each worker.",
    )


class WorkerGroup(Spec):
    """A group of equal workers."""

    name: str = Field(
        "edge",
        pattern=GROUP_NAME_PATTERN,
        max_length=GROUP_NAME_LENGTH,
        description="Name of the group: a letter, then up to 11 letters or digits.",
    )
    replicas: int = Field(
        3, ge=1, le=MOST_REPLICAS, json_schema_extra=MUTABLE, description="Number of workers."
    )
    placement: Placement = Field("any", description="cloud, edge or any node.")
    image: Image = Field("", description="Container image; empty: the aggregator's.")
    gpus: Gpus = Field(default_factory=Gpus, description="GPUs of each worker.")
    resources: Opaque = Field(
        default_factory=dict, description="Resource requests and limits of the main container."
    )
    run_as_user: int = Field(
        65532, ge=1, le=2_147_483_647, description="User id of the pod; the data must be readable by it."
    )
    dataset: GroupDataset = Field(
        default_factory=GroupDataset, description="What this group overrides of spec.dataset."
    )
    state: WorkerState = Field(
        default_factory=WorkerState, description="Volume for large state of each worker."
    )
    pod_template: Opaque = Field(default_factory=dict, description="Merged into the pod template last.")


class RunPolicy(Spec):
    """Limits in time and number of failures; names as in batch/v1."""

    backoff_limit: int = Field(
        6, ge=0, le=1000, description="Failures of each worker, and of the aggregator, before giving up."
    )
    active_deadline_seconds: int = Field(
        86_400, ge=1, le=31_536_000, description="Longest active time; suspended time does not count."
    )
    pending_deadline_seconds: int = Field(
        900,
        ge=1,
        le=31_536_000,
        description="How long a pod may stay pending before the job fails or is degraded.",
    )
    orphan_seconds: int = Field(
        3600,
        ge=1,
        le=31_536_000,
        description="A worker without contact for that long saves its state and leaves.",
    )
    ttl_seconds_after_finished: int | None = Field(
        None,
        ge=0,
        le=2_147_483_647,
        json_schema_extra=MUTABLE,
        description="Deletes the job so long after its end, once its report is made; null: never.",
    )
    clean_pod_policy: Literal["All", "Running", "None"] = Field(
        "Running", json_schema_extra=MUTABLE, description="Which pods go at the end."
    )


class ReportPrometheus(Spec):
    """The Prometheus that the report reads."""

    url: str = Field(
        "", max_length=2048, description="Base URL; empty: the report uses the run's record only."
    )
    secret_name: str = Field("", max_length=253, description="Secret with a token, or username and password.")


class CompareWith(Spec):
    """Other jobs of the namespace that the report compares with."""

    names: list[Annotated[str, Field(max_length=JOB_NAME_LENGTH)]] = Field(
        default_factory=list, max_length=64, description="Names of jobs."
    )
    selector: Opaque = Field(default_factory=dict, description="A label selector of jobs.")


class Report(Spec):
    """What becomes of the results."""

    prometheus: ReportPrometheus = Field(
        default_factory=ReportPrometheus, description="The Prometheus to read."
    )
    volume: Volume = Field(default_factory=dict, description="Where the full report is written.")
    compare_with: CompareWith = Field(
        default_factory=CompareWith, description="Jobs on the same leaderboard."
    )
    grace_seconds: int = Field(
        120, ge=0, le=86_400, description="How long the aggregator serves its record at the end."
    )
    deadline_seconds: int = Field(600, ge=1, le=86_400, description="Longest time of the report job.")


__all__ = [
    "Aggregator",
    "Checkpoint",
    "CompareWith",
    "Expose",
    "Gpus",
    "Report",
    "ReportPrometheus",
    "RunPolicy",
    "WorkerGroup",
    "WorkerState",
]
