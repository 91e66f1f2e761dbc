"""Every string that two sides share: labels, annotations, conditions, environment, ports, paths.

The operator writes what the pods, the dashboards and the docs read; a second spelling of any of these would
be a bug that no type checker sees. Reasons live in `reasons`, metrics in `metric_names`; both are exported
here, so that `engram.spec.names` is the one place to look.
"""

from __future__ import annotations

import re
from enum import StrEnum

from engram.spec.metric_names import METRICS, Metric, MetricKind, MetricName
from engram.spec.reasons import Reason

GROUP = "engram.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
KIND = "FederatedIncrementalJob"
PLURAL = "federatedincrementaljobs"
SINGULAR = "federatedincrementaljob"
SHORT_NAME = "fij"
CATEGORY = "ai"
"""Not `all`: `kubectl delete all --all` would delete training runs."""

CRD_NAME = f"{PLURAL}.{GROUP}"
OPERATOR = f"{GROUP}/operator"
"""Value of `spec.managedBy` that our operator answers to, and its name as a field manager."""

JOB_NAME_PATTERN = r"^[a-z]([-a-z0-9]*[a-z0-9])?$"
JOB_NAME_LENGTH = 40
GROUP_NAME_PATTERN = r"^[a-z][a-z0-9]{0,11}$"
GROUP_NAME_LENGTH = 12
RESERVED_GROUP_NAMES = ("aggregation", "report", "spec", "credentials")
"""Names that a worker group may not take: children of the job are called `<job>-<name>`."""

MOST_GROUPS = 32
MOST_REPLICAS = 1000
MOST_WORKERS = 10_000
"""Workers of all groups of a job together."""

FEDERATION_PORT = 7363
"""The one port that is ever exposed; Sedna's, too."""
STATUS_PORT = 9464
"""/metrics, /healthz, /v1/status, /v1/record; read-only, inside the cluster."""
FEDERATION_PORT_NAME = "tcp-0"
STATUS_PORT_NAME = "http-metrics"

FEDERATION_PATH = "/v1/federation"
SUBPROTOCOL = "engram.v1"
METRICS_PATH = "/metrics"
HEALTH_PATH = "/healthz"
STATUS_PATH = "/v1/status"
RECORD_PATH = "/v1/record"

MAIN_CONTAINER = "main"
AGGREGATOR_WORKER = "aggworker-0"
"""The aggregator's own worker name (Sedna's)."""


def worker_name(group: str, index: int) -> str:
    """Return the stable name of worker `index` (from 0) of `group`."""
    return f"trainworker-{group}-{index}"


def split_worker_name(name: str) -> tuple[str, int] | None:
    """Return group and index of a worker's name, None for any other text."""
    match = re.fullmatch(r"trainworker-([a-z][a-z0-9]*)-(0|[1-9][0-9]{0,5})", name)
    return None if match is None else (match[1], int(match[2]))


def tls_name(namespace: str, job: str) -> str:
    """Return the name in the aggregator's certificate; workers verify it whatever address they dial."""
    return f"{job}-aggregation.{namespace}.svc"


class MountPath(StrEnum):
    """Where pods find things."""

    SPEC = "/etc/engram/spec"
    """The resolved spec and its digest."""
    CREDENTIALS = "/etc/engram/credentials"
    """Of the aggregator: server key and K; of a worker: its own token and the CA."""
    DATA = "/data"
    CHECKPOINT = "/checkpoint"
    STATE = "/state"
    REPORT = "/report"
    PEERS = "/peers"
    """Of the report's pod: a directory with report.json for each job to compare with that has one."""
    PROMETHEUS = "/etc/engram/prometheus"
    """Of the report's pod: the Secret of spec.report.prometheus."""
    TERMINATION_LOG = "/dev/termination-log"


class SpecKey(StrEnum):
    """Keys of the ConfigMap `<job>-spec`, files below `MountPath.SPEC`."""

    JOB = "job.yaml"
    """The resolved job: metadata name, namespace, uid; spec with every default."""
    DIGEST = "digest"
    """Of the whole resolved spec as it was applied."""
    ENDPOINTS = "endpoints"
    """`host:port` a line, in the order in which workers try them."""
    CLOUD_ENDPOINTS = "endpoints-cloud"
    """The same for groups with `placement: cloud`, who see it as `endpoints`: the Service's name is first."""
    REPLICAS = "replicas"
    """`group number` a line, as wanted now; `job.yaml` of a computed split keeps those of the start."""
    CA = "ca.crt"
    """Certificate of the job's own CA (PEM); public, so not in a Secret."""


class CredentialsKey(StrEnum):
    """Keys of the Secret `<job>-credentials`, files below `MountPath.CREDENTIALS` of the aggregator."""

    KEY = "key"
    """K in hexadecimal: every worker's token is derived from it."""
    CERTIFICATE = "tls.crt"
    PRIVATE_KEY = "tls.key"
    CA = "ca.crt"


TOKEN_FILE = "token"
"""Below `MountPath.CREDENTIALS` of a worker: its own entry of the Secret `<job>-worker-tokens`."""


class Child(StrEnum):
    """Suffixes of the job's children: `<job>-<suffix>`; worker groups add their own names."""

    AGGREGATION = "aggregation"
    SPEC = "spec"
    CREDENTIALS = "credentials"
    WORKER_TOKENS = "worker-tokens"
    REPORT = "report"
    CHECKPOINT = "checkpoint"
    """The claim made for `spec.aggregator.checkpoint.size`."""
    NODE_PORT = "node-port"
    """The Service of `expose.type: NodePort`: port 7363 alone, so that 9464 never gets a node port."""


class Label(StrEnum):
    """Labels of every child."""

    JOB = f"{GROUP}/job"
    JOB_UID = f"{GROUP}/job-uid"
    ROLE = f"{GROUP}/role"
    """aggregator, worker or report."""
    GROUP = f"{GROUP}/group"
    NAME = "app.kubernetes.io/name"
    INSTANCE = "app.kubernetes.io/instance"
    COMPONENT = "app.kubernetes.io/component"
    PART_OF = "app.kubernetes.io/part-of"
    MANAGED_BY = "app.kubernetes.io/managed-by"
    EDGE_NODE = "node-role.kubernetes.io/edge"
    """Of a node: it is an edge node (KubeEdge)."""
    APP_OFFLINE = "app-offline.kubeedge.io"
    """Of a pod, value `autonomy`: an offline edge node keeps it."""


class Role(StrEnum):
    """Values of `Label.ROLE`."""

    AGGREGATOR = "aggregator"
    WORKER = "worker"
    REPORT = "report"


class Annotation(StrEnum):
    """Annotations that we write or read."""

    TEMPLATE_HASH = f"{GROUP}/template-hash"
    SPEC_DIGEST = f"{GROUP}/spec-digest"
    COMPLETION_INDEX = "batch.kubernetes.io/job-completion-index"


class Condition(StrEnum):
    """Condition types of `status.conditions`; Complete and Failed are terminal and exclusive."""

    ACCEPTED = "Accepted"
    WORKERS_READY = "WorkersReady"
    PROGRESSING = "Progressing"
    DEGRADED = "Degraded"
    SUSPENDED = "Suspended"
    REPORT_READY = "ReportReady"
    COMPLETE = "Complete"
    FAILED = "Failed"
    READY = "Ready"
    RECONCILING = "Reconciling"
    STALLED = "Stalled"


class Phase(StrEnum):
    """`status.phase`, derived from the conditions."""

    PENDING = "Pending"
    STARTING = "Starting"
    RUNNING = "Running"
    SUSPENDED = "Suspended"
    REPORTING = "Reporting"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"


class Environment(StrEnum):
    """Environment of the pods: Sedna's names, so that an unmodified Sedna image runs, then ours."""

    NAMESPACE = "NAMESPACE"
    JOB_NAME = "JOB_NAME"
    WORKER_NAME = "WORKER_NAME"
    WORKER_INDEX = "WORKER_INDEX"
    """From the completion index; declared first, so that later entries can use it."""
    PARTICIPANTS_COUNT = "PARTICIPANTS_COUNT"
    AGG_IP = "AGG_IP"
    AGG_PORT = "AGG_PORT"
    AGG_BIND_IP = "AGG_BIND_IP"
    AGG_BIND_PORT = "AGG_BIND_PORT"
    MODEL_URL = "MODEL_URL"
    PRETRAINED_MODEL_URL = "PRETRAINED_MODEL_URL"
    TRAIN_DATASET_URL = "TRAIN_DATASET_URL"
    TEST_DATASET_URL = "TEST_DATASET_URL"
    DATASET_NAME = "DATASET_NAME"
    MODEL_NAME = "MODEL_NAME"
    TRANSMITTER = "TRANSMITTER"
    DATA_PATH_PREFIX = "DATA_PATH_PREFIX"
    LC_SERVER = "LC_SERVER"
    ENGRAM_AGGREGATOR_ENDPOINTS = "ENGRAM_AGGREGATOR_ENDPOINTS"
    """Comma-separated, tried in order."""
    ENGRAM_JOB_FILE = "ENGRAM_JOB_FILE"
    ENGRAM_JOB_UID = "ENGRAM_JOB_UID"
    ENGRAM_WORKER_GROUP = "ENGRAM_WORKER_GROUP"
    ENGRAM_TOKEN_FILE = "ENGRAM_TOKEN_FILE"
    ENGRAM_KEY_FILE = "ENGRAM_KEY_FILE"
    ENGRAM_DATA_DIR = "ENGRAM_DATA_DIR"
    ENGRAM_CHECKPOINT_DIR = "ENGRAM_CHECKPOINT_DIR"
    ENGRAM_STATE_DIR = "ENGRAM_STATE_DIR"
    ENGRAM_REPORT_DIR = "ENGRAM_REPORT_DIR"
    ENGRAM_REPORT_PEERS = "ENGRAM_REPORT_PEERS"
    """Directories of the reports to compare with, a colon between them."""
    ENGRAM_PROMETHEUS_URL = "ENGRAM_PROMETHEUS_URL"
    ENGRAM_PROMETHEUS_SECRET_DIR = "ENGRAM_PROMETHEUS_SECRET_DIR"
    ENGRAM_ENDPOINTS_FILE = "ENGRAM_ENDPOINTS_FILE"
    """One endpoint of the aggregator a line; read again at each reconnect."""
    ENGRAM_CA_FILE = "ENGRAM_CA_FILE"
    """Of a worker: verifies the aggregator; absent: no TLS."""
    ENGRAM_TLS_NAME = "ENGRAM_TLS_NAME"
    """Name in the aggregator's certificate, whatever address was dialled."""
    ENGRAM_TLS_CERT_FILE = "ENGRAM_TLS_CERT_FILE"
    ENGRAM_TLS_KEY_FILE = "ENGRAM_TLS_KEY_FILE"
    ENGRAM_TERMINATION_LOG = "ENGRAM_TERMINATION_LOG"
    """Where a pod leaves its last word for the kubelet; absent: nowhere."""


class Direction(StrEnum):
    """Values of the label `direction`."""

    DOWN = "down"
    UP = "up"


class RoundPhase(StrEnum):
    """Values of the label `phase` of a round, in their order."""

    BROADCAST = "broadcast"
    TRAIN = "train"
    UPLOAD = "upload"
    AGGREGATE = "aggregate"
    EVALUATE = "evaluate"
    CHECKPOINT = "checkpoint"


class WorkerCondition(StrEnum):
    """Values of the label `state` of a worker as the aggregator sees it."""

    CONNECTED = "connected"
    TRAINING = "training"
    UPLOADING = "uploading"
    DISCONNECTED = "disconnected"
    FINISHED = "finished"
    FAILED = "failed"


class Stage(StrEnum):
    """Values of `stage` in the aggregator's live status: what the run is busy with."""

    GATHERING = "gathering"
    """Workers connect."""
    ROUNDS = "rounds"
    CONSOLIDATING = "consolidating"
    """A task has ended; workers send what the algorithm keeps of it."""
    EVALUATING = "evaluating"
    OVER = "over"


class Rejection(StrEnum):
    """Values of the label `reason` of a rejected update or connection."""

    LATE = "late"
    DUPLICATE = "duplicate"
    SHAPE = "shape"
    NON_FINITE = "non-finite"
    UNAUTHORISED = "unauthorised"
    TOO_LARGE = "too-large"
    NORM = "norm"
    PROTOCOL = "protocol"


__all__ = [
    "AGGREGATOR_WORKER",
    "API_VERSION",
    "CATEGORY",
    "CRD_NAME",
    "FEDERATION_PATH",
    "FEDERATION_PORT",
    "FEDERATION_PORT_NAME",
    "GROUP",
    "GROUP_NAME_LENGTH",
    "GROUP_NAME_PATTERN",
    "HEALTH_PATH",
    "JOB_NAME_LENGTH",
    "JOB_NAME_PATTERN",
    "KIND",
    "MAIN_CONTAINER",
    "METRICS",
    "METRICS_PATH",
    "MOST_GROUPS",
    "MOST_REPLICAS",
    "MOST_WORKERS",
    "OPERATOR",
    "PLURAL",
    "RECORD_PATH",
    "RESERVED_GROUP_NAMES",
    "SHORT_NAME",
    "SINGULAR",
    "STATUS_PATH",
    "STATUS_PORT",
    "STATUS_PORT_NAME",
    "SUBPROTOCOL",
    "TOKEN_FILE",
    "VERSION",
    "Annotation",
    "Child",
    "Condition",
    "CredentialsKey",
    "Direction",
    "Environment",
    "Label",
    "Metric",
    "MetricKind",
    "MetricName",
    "MountPath",
    "Phase",
    "Reason",
    "Rejection",
    "Role",
    "RoundPhase",
    "SpecKey",
    "Stage",
    "WorkerCondition",
    "split_worker_name",
    "tls_name",
    "worker_name",
]
