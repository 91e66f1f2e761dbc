"""Pod templates of the aggregator and of each worker group, with the job's `podTemplate` merged in last."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from engram.spec.job import FederatedIncrementalJob
from engram.spec.names import (
    FEDERATION_PORT,
    FEDERATION_PORT_NAME,
    HEALTH_PATH,
    MAIN_CONTAINER,
    STATUS_PORT,
    STATUS_PORT_NAME,
    MountPath,
    Role,
)
from engram.spec.topology import WorkerGroup
from engram_operator.manifests import placement, security
from engram_operator.manifests.context import Context
from engram_operator.manifests.environment import aggregator_environment, worker_environment
from engram_operator.manifests.guard import check_merged, check_pod_template
from engram_operator.manifests.labels import labels
from engram_operator.manifests.merge import merge
from engram_operator.manifests.record import record_grace
from engram_operator.manifests.volumes import Mounted, aggregator_volumes, worker_volumes
from engram_operator.model import Object
from engram_operator.settings import Settings

AGGREGATOR_GRACE_SECONDS = 60
"""After SIGTERM: the round's state is written to the checkpoint volume, which may be slow."""
WORKER_GRACE_SECONDS = 30
"""After SIGTERM: a worker's state is small, the step under way may not be."""

HOST_NETWORK_DNS = "ClusterFirstWithHostNet"
"""dnsPolicy of a pod on the host's network: the default would not know the cluster's names."""


def aggregator_template(job: FederatedIncrementalJob, context: Context) -> Object:
    """Return the template of the aggregator's pod.

    Raises ConfigurationError for a podTemplate that cannot be merged or breaks what the operator needs.
    """
    wanted, settings = job.spec.aggregator, context.settings
    mounted = aggregator_volumes(job)
    federation: Object = {"name": FEDERATION_PORT_NAME, "containerPort": FEDERATION_PORT, "protocol": "TCP"}
    if wanted.expose.type == "HostPort":
        federation["hostPort"] = wanted.expose.port or FEDERATION_PORT
    status = {"name": STATUS_PORT_NAME, "containerPort": STATUS_PORT, "protocol": "TCP"}
    main = {
        **main_container(wanted.image or settings.image, settings, mounted),
        "command": ["engram", "aggregator"],
        "args": ["--grace", str(record_grace(job))],
        "env": aggregator_environment(job),
        "ports": [federation, status],
        "readinessProbe": {
            "httpGet": {"path": HEALTH_PATH, "port": STATUS_PORT_NAME},
            "periodSeconds": 3,
            "timeoutSeconds": 5,
            "failureThreshold": 10,  # an aggregation that holds the interpreter is no reason to be unready
        },
        "resources": dict(wanted.resources),
    }
    template = {
        "metadata": {
            "labels": {
                **labels(job, Role.AGGREGATOR),
                **placement.placement_labels(wanted.placement),
            }
        },
        "spec": {
            **pod_spec(job, security.USER, mounted),
            **placement.scheduling(wanted.placement, node_name=wanted.node_name, exposed=_exposed(job)),
            "terminationGracePeriodSeconds": AGGREGATOR_GRACE_SECONDS,
            "containers": [main],
        },
    }
    return _finished(template, wanted.pod_template, "spec.aggregator.podTemplate", settings)


def worker_template(job: FederatedIncrementalJob, group: WorkerGroup, context: Context) -> Object:
    """Return the template of the pods of `group`; errors as `aggregator_template`."""
    settings = context.settings
    mounted = worker_volumes(job, group)
    main = {
        **main_container(group.image or job.spec.aggregator.image or settings.image, settings, mounted),
        "command": ["engram", "worker"],
        "env": worker_environment(job, group, context),
        "resources": placement.gpu_resources(group.resources, group.gpus),
    }
    scheduling = placement.scheduling(group.placement, exposed=_exposed(job))
    tolerations = [*scheduling.get("tolerations", ()), *placement.gpu_tolerations(group.gpus)]
    template = {
        "metadata": {
            "labels": {
                **labels(job, Role.WORKER, group.name),
                **placement.placement_labels(group.placement),
            }
        },
        "spec": {
            **pod_spec(job, group.run_as_user, mounted),
            **scheduling,
            **({"tolerations": tolerations} if tolerations else {}),
            "terminationGracePeriodSeconds": WORKER_GRACE_SECONDS,
            "containers": [main],
        },
    }
    position = next(at for at, item in enumerate(job.spec.workers) if item.name == group.name)
    return _finished(template, group.pod_template, f"spec.workers[{position}].podTemplate", settings)


def _exposed(job: FederatedIncrementalJob) -> bool:
    """Return whether the job says how nodes without cluster network reach the aggregator."""
    expose = job.spec.aggregator.expose
    return expose.type != "ClusterIP" or bool(expose.address)


def main_container(image: str, settings: Settings, mounted: Sequence[Mounted]) -> Object:
    """Return what the main containers of all pods share."""
    return {
        "name": MAIN_CONTAINER,
        "image": image,
        "imagePullPolicy": settings.image_pull_policy,
        "securityContext": security.container_security(),
        "terminationMessagePath": MountPath.TERMINATION_LOG,
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [item.mount for item in mounted],
    }


def pod_spec(job: FederatedIncrementalJob, user: int, mounted: Sequence[Mounted]) -> Object:
    """Return what the specs of all pods share."""
    secrets = {"imagePullSecrets": job.spec.image_pull_secrets} if job.spec.image_pull_secrets else {}
    return {
        "restartPolicy": "Never",
        **security.pod_security(user),
        **secrets,
        "volumes": [item.volume for item in mounted],
    }


def _finished(base: Object, own: Mapping[str, Any], field: str, settings: Settings) -> Object:
    """Return our template with the job's merged in, checked, and completed where the merge needs it."""
    if not own:
        return base
    check_pod_template(own, field)
    merged = merge(base, own, field)
    check_merged(base, merged, field, allow_service_accounts=settings.allow_service_accounts)
    spec = merged["spec"]
    if spec.get("hostNetwork"):
        spec.setdefault("dnsPolicy", HOST_NETWORK_DNS)
    for kind in ("containers", "initContainers"):
        if isinstance(spec.get(kind), list):
            spec[kind] = [
                item if kind == "containers" and item["name"] == MAIN_CONTAINER else security.hardened(item)
                for item in spec[kind]
            ]
    return merged
