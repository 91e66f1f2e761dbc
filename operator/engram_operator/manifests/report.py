"""The report: a Job that makes it of the run's record, and the ConfigMap that keeps its compact form.

A record on the checkpoint's volume is read when the aggregator has ended: the two pods never mount it at the
same time, as most volumes are ReadWriteOnce. Else the report's pod comes while the aggregator still serves
it.

The pod holds no API token: what it prints last is the compact report, which the operator reads from its log.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from engram.spec.exit_codes import ExitCode
from engram.spec.job import FederatedIncrementalJob
from engram.spec.names import MAIN_CONTAINER, RECORD_PATH, STATUS_PORT, MountPath, Role
from engram_operator.manifests import placement
from engram_operator.manifests.environment import reporter_environment
from engram_operator.manifests.jobs import batch_job, failure_policy
from engram_operator.manifests.labels import labels, metadata
from engram_operator.manifests.merge import merge
from engram_operator.manifests.names import aggregation_name, report_name
from engram_operator.manifests.pods import main_container, pod_spec
from engram_operator.manifests.record import record_source
from engram_operator.manifests.security import USER
from engram_operator.manifests.volumes import checkpoint_source, reporter_volumes
from engram_operator.model import Object
from engram_operator.settings import Settings

BACKOFF_LIMIT = 2
"""Crashes of the report's pod before it is given up: the record does not change between two tries."""
RECORD_SECONDS = 60
"""For which the pod asks for the record."""
GRACE_SECONDS = 5
"""After SIGTERM: nothing is lost that a new pod does not make again."""

_OF_THE_AGGREGATOR = (
    "nodeSelector",
    "tolerations",
    "affinity",
    "priorityClassName",
    "runtimeClassName",
    "schedulerName",
    "securityContext",
    "imagePullSecrets",
)
"""What the report's pod takes over of the aggregator's podTemplate: where it runs and as whom."""
_OF_ITS_MAIN = ("image", "imagePullPolicy")


def report_job(
    job: FederatedIncrementalJob,
    settings: Settings,
    *,
    node: str = "",
    image: str = "",
    peers: Sequence[str] = (),
) -> Object:
    """Return the report's Job.

    Args:
        job: as it was started.
        settings: of the operator.
        node: where the aggregator ran last; a checkpoint on a hostPath is there and nowhere else.
        image: that it ran; empty: it is not known any more. The default may be another one by now, and only
            the version that wrote a record is sure to read it.
        peers: names of the jobs to compare with.
    """
    meta = metadata(job, report_name(job.name), Role.REPORT)
    spec = {
        "parallelism": 1,
        "completions": 1,
        "completionMode": "NonIndexed",
        "backoffLimit": BACKOFF_LIMIT,
        "activeDeadlineSeconds": job.spec.report.deadline_seconds,
        "podReplacementPolicy": "Failed",
        "podFailurePolicy": {
            "rules": failure_policy(
                {ExitCode.CONFIGURATION: "FailJob", ExitCode.DATA: "FailJob", ExitCode.RETRY: "Ignore"}
            )
        },
        "template": _template(job, settings, node, image, peers),
    }
    return batch_job(meta, spec)


def report_config_map(job: FederatedIncrementalJob, files: Mapping[str, str]) -> Object:
    """Return the ConfigMap with the files of the compact report, name -> text."""
    meta = metadata(job, report_name(job.name), Role.REPORT)
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": dict(files)}


def _template(
    job: FederatedIncrementalJob, settings: Settings, node: str, image: str, peers: Sequence[str]
) -> Object:
    wanted, source, limit = job.spec.aggregator, record_source(job), job.spec.report.deadline_seconds
    mounted = reporter_volumes(job, checkpoint=source == "checkpoint", peers=peers)
    record = f"{MountPath.CHECKPOINT}/{job.metadata.uid}"
    if source == "aggregator":
        host = f"{aggregation_name(job.name)}.{job.metadata.namespace}.svc.{settings.cluster_domain}"
        record = f"http://{host}:{STATUS_PORT}{RECORD_PATH}"
    tied = node if "hostPath" in checkpoint_source(job) else ""
    template = {
        "metadata": {"labels": {**labels(job, Role.REPORT), **placement.placement_labels(wanted.placement)}},
        "spec": {
            **pod_spec(job, USER, mounted),
            # A record that is fetched by the Service's name needs a node with the cluster's network.
            **placement.scheduling(wanted.placement, node_name=tied, exposed=source != "aggregator"),
            "terminationGracePeriodSeconds": GRACE_SECONDS,
            "containers": [
                {
                    **main_container(image or wanted.image or settings.image, settings, mounted),
                    "command": ["engram", "reporter"],
                    "args": ["--record", record, "--deadline", str(min(RECORD_SECONDS, limit // 2 or 1))],
                    "env": reporter_environment(job, peers),
                    "resources": dict(wanted.resources),
                }
            ],
        },
    }
    # It was merged into the aggregator's template before: what is wrong with it has been said.
    return merge(template, _taken_over(wanted.pod_template), "spec.aggregator.podTemplate")


def _taken_over(own: Mapping[str, Any]) -> Object:
    """Return the part of the aggregator's podTemplate that holds for the report's pod too.

    Its labels and annotations tell admission webhooks and meshes what to do with pods of the job.
    """
    meta, spec = own.get("metadata") or {}, own.get("spec") or {}
    ours: Object = next(
        (item for item in spec.get("containers") or () if item.get("name") == MAIN_CONTAINER), {}
    )
    main = {key: ours[key] for key in _OF_ITS_MAIN if key in ours}
    taken = {key: spec[key] for key in _OF_THE_AGGREGATOR if key in spec}
    if main:
        taken["containers"] = [{"name": MAIN_CONTAINER, **main}]
    return {
        "metadata": {key: meta[key] for key in ("labels", "annotations") if key in meta},
        "spec": taken,
    }
