"""The FederatedIncrementalJob itself: metadata, spec and the questions that everybody asks of them."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Literal

from pydantic import ConfigDict, Field

from engram.spec.base import MUTABLE, OPAQUE, Opaque, Spec
from engram.spec.data import Dataset, Tasks
from engram.spec.names import JOB_NAME_LENGTH, JOB_NAME_PATTERN, MOST_GROUPS, OPERATOR, worker_name
from engram.spec.topology import Aggregator, Report, RunPolicy, WorkerGroup
from engram.spec.training import Aggregation, Algorithm, Evaluation, Model, Training


class Metadata(Spec):
    """The part of Kubernetes' ObjectMeta that a job file uses; other keys are kept as they are."""

    model_config = ConfigDict(**{**Spec.model_config, "extra": "allow", "json_schema_extra": OPAQUE})

    name: str = Field(
        pattern=JOB_NAME_PATTERN,
        max_length=JOB_NAME_LENGTH,
        description="Name of the job: lower-case letters, digits and hyphens, at most 40.",
    )
    namespace: str = Field(
        "default", max_length=63, description="Namespace; the local runner only records it."
    )
    uid: str = Field("", max_length=64, description="Set by Kubernetes.")


class JobSpec(Spec):
    """What to train, on which data, where and with what limits."""

    seed: int = Field(0, ge=0, le=4_294_967_295, description="Every random choice derives from it.")
    suspend: bool = Field(
        False,
        json_schema_extra=MUTABLE,
        description="true: pods go, checkpoints stay; false again: the run continues.",
    )
    managed_by: str = Field(
        OPERATOR,
        min_length=1,
        max_length=63,
        description="Another value keeps this operator's hands off the job.",
    )
    dataset: Dataset = Field(default_factory=Dataset, description="The data set and its split.")
    tasks: Tasks = Field(default_factory=Tasks, description="The sequence of tasks.")
    model: Model = Field(default_factory=Model, description="The network.")
    training: Training = Field(default_factory=Training, description="Local training on the workers.")
    algorithm: Algorithm = Field(default_factory=Algorithm, description="The class-incremental algorithm.")
    aggregation: Aggregation = Field(
        default_factory=Aggregation, description="How updates become the global model."
    )
    evaluation: Evaluation = Field(default_factory=Evaluation, description="Where and how often to evaluate.")
    protocol: Literal["engram", "sedna"] = Field("engram", description="How aggregator and workers talk.")
    image_pull_secrets: list[Opaque] = Field(
        default_factory=list, max_length=16, description="Secrets for pulling images, as in a pod spec."
    )
    aggregator: Aggregator = Field(default_factory=Aggregator, description="The aggregation pod.")
    workers: list[WorkerGroup] = Field(
        default_factory=lambda: [WorkerGroup()],
        min_length=1,
        max_length=MOST_GROUPS,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
        description="Groups of workers.",
    )
    run_policy: RunPolicy = Field(default_factory=RunPolicy, description="Limits in time and failures.")
    report: Report = Field(
        default_factory=Report, json_schema_extra=MUTABLE, description="What becomes of the results."
    )


class WorkerIdentity(Spec):
    """One worker of a job: a stable name that survives restarts and rescheduling."""

    name: str
    group: str
    index: int
    """Index within the group, from 0 (Kubernetes' job completion index)."""
    position: int
    """Position over all groups in file order, from 0; the computed partition uses it."""
    label_ratio: float
    volume: dict[str, Any]
    path: str


class FederatedIncrementalJob(Spec):
    """A job file."""

    api_version: Literal["engram.dev/v1alpha1"] = Field(
        "engram.dev/v1alpha1",
        description="Group and version.",
    )
    kind: Literal["FederatedIncrementalJob"] = Field("FederatedIncrementalJob", description="Kind.")
    metadata: Metadata = Field(description="Name and labels of the job.")
    spec: JobSpec = Field(default_factory=JobSpec, description="What to train, on which data, where.")

    @property
    def name(self) -> str:
        """The job's name."""
        return self.metadata.name

    def workers(self) -> tuple[WorkerIdentity, ...]:
        """Return all workers, groups in file order: `trainworker-<group>-<index>` each."""
        found: list[WorkerIdentity] = []
        data = self.spec.dataset
        for group in self.spec.workers:
            override = group.dataset
            for index in range(group.replicas):
                found.append(
                    WorkerIdentity(
                        name=worker_name(group.name, index),
                        group=group.name,
                        index=index,
                        position=len(found),
                        label_ratio=data.label_ratio
                        if override.label_ratio is None
                        else override.label_ratio,
                        volume=data.volume if override.volume is None else override.volume,
                        path=data.path if override.path is None else override.path,
                    )
                )
        return tuple(found)

    def digest(self) -> str:
        """Return the SHA-256 of what decides the result: the spec without what may change while it runs.

        Name, suspension, placement, limits and report settings do not count, so a resumed or renamed job
        still fits its checkpoint. Replicas count where the split is computed over them, so not with partition
        local, whose groups may grow while the job runs.
        """
        spec = self.spec.dump()
        for key in ("suspend", "managedBy", "report", "imagePullSecrets", "aggregator"):
            spec.pop(key)
        spec["runPolicy"] = None
        for group in spec["workers"]:
            for key in ("image", "placement", "gpus", "resources", "runAsUser", "podTemplate", "state"):
                group.pop(key)
            if self.spec.dataset.partition.method == "local":
                group.pop("replicas")
        text = json.dumps(spec, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()
