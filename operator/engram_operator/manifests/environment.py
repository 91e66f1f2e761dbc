"""Environment of the pods: Sedna's names, so that an unmodified Sedna image runs, then engram's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from engram.spec.job import FederatedIncrementalJob
from engram.spec.names import (
    AGGREGATOR_WORKER,
    FEDERATION_PORT,
    TOKEN_FILE,
    Annotation,
    CredentialsKey,
    MountPath,
    SpecKey,
    tls_name,
)
from engram.spec.names import Environment as Env
from engram.spec.topology import WorkerGroup
from engram_operator.manifests.context import Context
from engram_operator.manifests.endpoints import cloud_endpoints, split
from engram_operator.manifests.volumes import TEMPORARY, group_data
from engram_operator.model import Object

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
"""What numeric libraries read before `training.threads` reaches torch; as in the local runner."""


def aggregator_environment(job: FederatedIncrementalJob) -> list[Object]:
    """Return the environment of the aggregator's main container."""
    data_set, credentials = job.spec.dataset, MountPath.CREDENTIALS
    directory = f"{MountPath.CHECKPOINT}/{job.metadata.uid}"
    values = {
        **_common(job, AGGREGATOR_WORKER),
        **_data(bool(data_set.volume), data_set.path),
        Env.AGG_BIND_IP: "0.0.0.0",
        Env.AGG_BIND_PORT: str(FEDERATION_PORT),
        Env.MODEL_URL: f"{directory}/model",
        Env.LC_SERVER: f"http://127.0.0.1:{FEDERATION_PORT}",
        Env.ENGRAM_KEY_FILE: f"{credentials}/{CredentialsKey.KEY}",
        Env.ENGRAM_TLS_CERT_FILE: f"{credentials}/{CredentialsKey.CERTIFICATE}",
        Env.ENGRAM_TLS_KEY_FILE: f"{credentials}/{CredentialsKey.PRIVATE_KEY}",
        Env.ENGRAM_CHECKPOINT_DIR: directory,
    }
    return _entries(values)


def worker_environment(job: FederatedIncrementalJob, group: WorkerGroup, context: Context) -> list[Object]:
    """Return the environment of a worker's main container.

    WORKER_INDEX comes first: WORKER_NAME, and through it the mounts, are expanded from it.
    """
    endpoints = context.endpoints
    if group.placement == "cloud" or not endpoints:
        endpoints = cloud_endpoints(job, endpoints, context.settings)
    host, port = split(endpoints[0])
    path = job.spec.dataset.path if group.dataset.path is None else group.dataset.path
    home = MountPath.STATE if group.state.volume else TEMPORARY
    values = {
        **_common(job, f"trainworker-{group.name}-$({Env.WORKER_INDEX})"),
        **_data(bool(group_data(job, group)), path),
        Env.AGG_IP: host,
        Env.AGG_PORT: port,
        Env.MODEL_URL: f"{home}/model",
        Env.LC_SERVER: f"http://{endpoints[0]}",
        Env.ENGRAM_AGGREGATOR_ENDPOINTS: ",".join(endpoints),
        Env.ENGRAM_ENDPOINTS_FILE: f"{MountPath.SPEC}/{SpecKey.ENDPOINTS}",
        Env.ENGRAM_WORKER_GROUP: group.name,
        Env.ENGRAM_TOKEN_FILE: f"{MountPath.CREDENTIALS}/{TOKEN_FILE}",
        Env.ENGRAM_CA_FILE: f"{MountPath.SPEC}/{SpecKey.CA}",
        Env.ENGRAM_TLS_NAME: tls_name(job.metadata.namespace, job.name),
    }
    if group.state.volume:
        values[Env.ENGRAM_STATE_DIR] = MountPath.STATE
    index = {"fieldRef": {"fieldPath": f"metadata.annotations['{Annotation.COMPLETION_INDEX}']"}}
    return [{"name": str(Env.WORKER_INDEX), "valueFrom": index}, *_entries(values)]


def reporter_environment(job: FederatedIncrementalJob, peers: Sequence[str] = ()) -> list[Object]:
    """Return the environment of the report's main container; `peers` are the jobs to compare with.

    What an older image does not know is here and not among its arguments, which it would refuse.
    """
    values = {Env.NAMESPACE: job.metadata.namespace, Env.JOB_NAME: job.name, **_ours(job)}
    if job.spec.report.volume:
        values[Env.ENGRAM_REPORT_DIR] = MountPath.REPORT
    if peers:
        values[Env.ENGRAM_REPORT_PEERS] = ":".join(f"{MountPath.PEERS}/{name}" for name in peers)
    prometheus = job.spec.report.prometheus
    if prometheus.url:
        values[Env.ENGRAM_PROMETHEUS_URL] = literal(prometheus.url)
    if prometheus.url and prometheus.secret_name:
        values[Env.ENGRAM_PROMETHEUS_SECRET_DIR] = MountPath.PROMETHEUS
    return _entries(values)


def _common(job: FederatedIncrementalJob, worker: str) -> dict[str, str]:
    """Return what the aggregator and workers share."""
    participants = sum(group.replicas for group in job.spec.workers)
    return {
        Env.NAMESPACE: job.metadata.namespace,
        Env.JOB_NAME: job.name,
        Env.WORKER_NAME: worker,
        Env.PARTICIPANTS_COUNT: str(participants),
        Env.DATASET_NAME: literal(job.spec.dataset.name),
        Env.MODEL_NAME: literal(job.spec.model.name),
        Env.PRETRAINED_MODEL_URL: "",
        Env.TRANSMITTER: "ws",
        Env.DATA_PATH_PREFIX: MountPath.DATA,
        **_ours(job),
    }


def _ours(job: FederatedIncrementalJob) -> dict[str, str]:
    """Return what every process of ours reads, and what keeps libraries within the pod's bounds."""
    return {
        Env.ENGRAM_JOB_FILE: f"{MountPath.SPEC}/{SpecKey.JOB}",
        Env.ENGRAM_JOB_UID: job.metadata.uid,
        Env.ENGRAM_TERMINATION_LOG: MountPath.TERMINATION_LOG,
        "HOME": TEMPORARY,
        "TMPDIR": TEMPORARY,
        "PYTHONUNBUFFERED": "1",
        **dict.fromkeys(THREAD_VARIABLES, str(job.spec.training.threads)),
    }


def _data(mounted: bool, path: str) -> dict[str, str]:
    """Return where the data lie; Sedna reads training and test data by two names."""
    root = f"{MountPath.DATA}/{path}".rstrip("/") if mounted else path
    values: dict[str, str] = {Env.TRAIN_DATASET_URL: literal(root), Env.TEST_DATASET_URL: literal(root)}
    if mounted:
        values[Env.ENGRAM_DATA_DIR] = MountPath.DATA
    return values


def literal(text: str) -> str:
    """Return `text` so that the kubelet, which reads `$$` as `$` wherever it stands, makes `text` of it."""
    return text.replace("$", "$$")


def _entries(values: Mapping[str, str]) -> list[Object]:
    return [{"name": str(name), "value": str(value)} for name, value in values.items()]
